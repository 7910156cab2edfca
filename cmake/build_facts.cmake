# Writes build_facts.c: the commit, the compiler, the libraries and their versions.  The commit is read when CMake
# runs, and CMake runs again after each commit.
function(git_says variable)
  execute_process(COMMAND ${GIT_EXECUTABLE} ${ARGN} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
                  OUTPUT_VARIABLE said OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  set(${variable} "${said}" PARENT_SCOPE)
endfunction()

set(commit "")
find_package(Git QUIET)
if(GIT_FOUND AND EXISTS ${PROJECT_SOURCE_DIR}/.git)
  git_says(commit rev-parse --short=10 HEAD)
  git_says(head_log rev-parse --git-path logs/HEAD)
  cmake_path(ABSOLUTE_PATH head_log BASE_DIRECTORY ${PROJECT_SOURCE_DIR})
  if(EXISTS ${head_log})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${head_log})
  endif()
endif()
if(NOT commit)
  set(commit unknown)
endif()

# oneDNN has no pkg-config file
set(DNNL_VERSION "")
if(DNNL_INCLUDE_DIR AND EXISTS ${DNNL_INCLUDE_DIR}/oneapi/dnnl/dnnl_version.h)
  file(STRINGS ${DNNL_INCLUDE_DIR}/oneapi/dnnl/dnnl_version.h lines REGEX "define DNNL_VERSION_(MAJOR|MINOR|PATCH) ")
  string(REGEX MATCHALL "[0-9]+" numbers "${lines}")
  string(REPLACE ";" "." DNNL_VERSION "${numbers}")
endif()

set(library_rows "")
foreach(row "oneDNN;${DNNL_VERSION}" "jansson;${JANSSON_VERSION}" "sentencepiece;${SENTENCEPIECE_VERSION}"
            "zstd;${ZSTD_VERSION}" "zlib;${ZLIB_VERSION}" "PCRE2;${PCRE2_VERSION}"
            "utf8proc;${UTF8PROC_VERSION}" "libpng;${PNG_VERSION}" "OpenMP;${OpenMP_C_VERSION}"
            "CUDA;${CUDAToolkit_VERSION}")
  list(GET row 0 name)
  list(GET row 1 version)
  string(APPEND library_rows "        {\"${name}\", \"${version}\"},\n")
endforeach()
configure_file(${PROJECT_SOURCE_DIR}/cmake/build_facts.c.in ${PROJECT_BINARY_DIR}/build_facts.c @ONLY)
