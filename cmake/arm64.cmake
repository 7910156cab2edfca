# 64-bit Arm by Debian's cross compiler, its programs run by qemu's user emulation.  What they link beside the compiler's
# own libraries is unpacked by tools/arm64_packages.sh, which comes first.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
# gcc 12.2 has an internal error when it makes vectors of a loop that takes the largest number by fmax
set(CMAKE_C_FLAGS_INIT -fno-tree-loop-vectorize)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static -L /usr/aarch64-linux-gnu)

cmake_path(SET arm64_packages NORMALIZE ${CMAKE_CURRENT_LIST_DIR}/../build/arm64-packages)
set(CMAKE_FIND_ROOT_PATH ${arm64_packages} /usr/aarch64-linux-gnu)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${arm64_packages})
set(ENV{PKG_CONFIG_LIBDIR} ${arm64_packages}/usr/lib/aarch64-linux-gnu/pkgconfig)
