# CMake reads this after each project() while llama-cpp-python is compiled (CMAKE_PROJECT_INCLUDE, set in the
# Makefile). It leaves out what cascade never loads: half of the CPU time of the whole.
set(LLAVA_BUILD OFF)         # libmtmd: images and sound
set(LLAMA_BUILD_COMMON OFF)  # libllama-common: options, downloads and chat parsing of llama.cpp's own programs
# Kernels (ggml) keep -O3; the code that builds graphs and samples is as fast with -O2 and compiles sooner.
if(NOT MSVC)
  if(PROJECT_NAME STREQUAL "ggml")
    set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
  else()
    set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
  endif()
endif()
