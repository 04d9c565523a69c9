# pymerge._cuda: the CUDA kernels, where a compiler for them works.
set(PYMERGE_CUDA AUTO CACHE STRING "CUDA kernels: AUTO (where nvcc works), ON or OFF")
set(PYMERGE_CUDA_ARCHITECTURES "80-real;90-real;100-real;120" CACHE STRING "What CUDA kernels are compiled for")
file(GLOB PYMERGE_CUDA_KERNELS CONFIGURE_DEPENDS csrc/*/*.cu kernels/*/*.cu kernels/*/cuda/*.cu)
file(GLOB PYMERGE_CUDA_BINDINGS CONFIGURE_DEPENDS pymerge/bindings/cuda/*.cc)
list(APPEND PYMERGE_CUDA_BINDINGS
  pymerge/bindings/convert.cc pymerge/bindings/bind_errors.cc csrc/core/error.cc)
# Bindings are compiled as one file (see _core), kernels each by itself.
set_source_files_properties(${PYMERGE_CUDA_KERNELS} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)

if(PYMERGE_EMULATE_CUDA)
  # The same sources for the machine at hand, by a C++ compiler: for tests, never installed.
  set_source_files_properties(${PYMERGE_CUDA_KERNELS} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++")
  pybind11_add_module(_cuda NO_EXTRAS ${PYMERGE_CUDA_BINDINGS} ${PYMERGE_CUDA_KERNELS}
    tests/native/cuda/fibers.cc tests/native/cuda/runtime.cc)
  set_source_files_properties(tests/native/cuda/fibers.cc tests/native/cuda/runtime.cc PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  set_target_properties(_cuda PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0)
  target_include_directories(_cuda PRIVATE tests/native/cuda csrc kernels)
  target_compile_definitions(_cuda PRIVATE PYMERGE_EMULATED_CUDA)
  target_compile_options(_cuda PRIVATE ${PYMERGE_FLAGS} -Wno-conversion -Wno-maybe-uninitialized -Wno-unknown-pragmas -O1)
  return()
endif()

if(NOT PYMERGE_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
endif()
if(NOT CMAKE_CUDA_COMPILER)
  if(PYMERGE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "PYMERGE_CUDA is ON, but no CUDA compiler works; set CUDACXX to an nvcc of 12.0 or newer")
  endif()
  return()
endif()
enable_language(CUDA)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  # nvcc knows C++20 from 12.0 on; CMake 3.25.1 does not know that.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.8)
  # It does not know what came later; the last one is compiled by the driver.
  list(FILTER PYMERGE_CUDA_ARCHITECTURES EXCLUDE REGEX "^1[0-9][0-9]")
  list(APPEND PYMERGE_CUDA_ARCHITECTURES 90-virtual)
endif()
pybind11_add_module(_cuda NO_EXTRAS ${PYMERGE_CUDA_BINDINGS} ${PYMERGE_CUDA_KERNELS})
set_target_properties(_cuda PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0
  CUDA_ARCHITECTURES "${PYMERGE_CUDA_ARCHITECTURES}" CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden)
target_include_directories(_cuda PRIVATE csrc kernels)
target_compile_options(_cuda PRIVATE
  "$<$<COMPILE_LANGUAGE:CXX>:${PYMERGE_FLAGS};-O2>"
  "$<$<COMPILE_LANGUAGE:CUDA>:--fmad=false;--threads=2;-Xcompiler=-Wall,-ffp-contract=off>")
install(TARGETS _cuda DESTINATION pymerge)
