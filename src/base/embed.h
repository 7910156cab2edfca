/* A file's bytes as a part of the library, with a 0 after them: `name`_begin to `name`_end. */
#ifndef SP_BASE_EMBED_H
#define SP_BASE_EMBED_H

#define SP_EMBED(name, path)                                                                                           \
    __asm__(".pushsection .rodata\n"                                                                                   \
            ".global " #name "_begin\n.hidden " #name "_begin\n" #name "_begin:\n"                                     \
            ".incbin \"" path "\"\n"                                                                                   \
            ".global " #name "_end\n.hidden " #name "_end\n" #name "_end:\n"                                           \
            ".byte 0\n.popsection\n");                                                                                 \
    extern const char name##_begin[], name##_end[]

#endif
