# SPDX-License-Identifier: Apache-2.0
# Build rules that every target shares: warnings, sanitizers, ccache, one static library per module.

find_program(CORAL_CCACHE ccache)
if(CORAL_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CORAL_CCACHE}")
endif()

add_library(coral_flags INTERFACE)
target_compile_options(coral_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wimplicit-fallthrough
                                             $<$<BOOL:${CORAL_WERROR}>:-Werror>)
target_include_directories(coral_flags INTERFACE "${CMAKE_SOURCE_DIR}/include")
# _FORTIFY_SOURCE and stack protection: the daemon parses files that strangers made.
target_compile_options(coral_flags INTERFACE -fstack-protector-strong
                                             $<$<CONFIG:Release,RelWithDebInfo>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=2>)
if(CORAL_SANITIZE)
  target_compile_options(coral_flags INTERFACE -fsanitize=${CORAL_SANITIZE} -fno-omit-frame-pointer -g)
  target_link_options(coral_flags INTERFACE -fsanitize=${CORAL_SANITIZE})
  if(CORAL_SANITIZE MATCHES undefined)
    target_compile_options(coral_flags INTERFACE -fno-sanitize-recover=all)
  endif()
endif()
if(CORAL_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES Clang)
    message(FATAL_ERROR "CORAL_FUZZ needs clang: -DCMAKE_CXX_COMPILER=clang++ (without it, the tests replay the corpora)")
  endif()
  target_compile_options(coral_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
                                               -fno-omit-frame-pointer -g)
  target_link_options(coral_flags INTERFACE -fsanitize=address,undefined)
endif()

# coral_module(NAME DEPS public... PRIVATE_DEPS private...): src/NAME/*.cpp with public headers in include/coral/NAME.
function(coral_module name)
  cmake_parse_arguments(ARG "" "" "DEPS;PRIVATE_DEPS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/src/${name}/*.cpp")
  if(NOT sources)
    add_library(coral_${name} INTERFACE)
    return()
  endif()
  add_library(coral_${name} STATIC ${sources})
  target_link_libraries(coral_${name} PUBLIC ${ARG_DEPS} coral_flags PRIVATE ${ARG_PRIVATE_DEPS})
  target_include_directories(coral_${name} PRIVATE "${CMAKE_SOURCE_DIR}/src")
endfunction()
