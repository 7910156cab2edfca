# Sets `commit` to the short name of the checked-out commit, "unknown" outside a git checkout.
# It is read when CMake runs, and CMake runs again after each commit.
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
