# The CUDA back end, built only with MOEBIUS_CUDA: one static library of every .cu file of src/kernels/cuda/*/ and
# src/platform/cuda/, for Hopper alone (sm_90a: its tensor-core and copy-engine instructions have no other target).
# A file NAME_test.cu becomes the program NAME_test in <build>/cuda/ (target cuda_programs builds them all). Tests need a
# GPU, so CTest knows them only by the label cuda. Files NAME_bench.cu are the library of `moebius bench`.
# Only the CUDA run time is linked, statically; the driver's own functions are looked up at run time, so a program starts
# on a host without a driver and can say so.
if(MOEBIUS_CUDA)
  find_program(MOEBIUS_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(MOEBIUS_NVCC AND NOT CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_COMPILER ${MOEBIUS_NVCC})
  endif()
  set(CMAKE_CUDA_ARCHITECTURES OFF)  # -gencode below names the only target
  set(CMAKE_CUDA_FLAGS "${CMAKE_CUDA_FLAGS} -std=c++20 -gencode=arch=compute_90a,code=sm_90a")
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
  enable_language(CUDA)
  # CMake 3.25 reads the language level off the flags above but has no name for this one.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()

function(moebius_cuda_target name)
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo -Xcompiler=-Wall,-Wno-unknown-pragmas
    --expt-relaxed-constexpr -Wno-deprecated-gpu-targets>)
endfunction()

function(moebius_cuda_kernels)
  if(NOT MOEBIUS_CUDA)
    return()
  endif()
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/cuda/*/*.cu
    ${CMAKE_SOURCE_DIR}/src/platform/cuda/*.cu)
  set(programs ${sources})
  list(FILTER programs INCLUDE REGEX "_test\\.cu$")
  set(benches ${sources})
  list(FILTER benches INCLUDE REGEX "_bench\\.cu$")
  list(FILTER sources EXCLUDE REGEX "_(test|bench)\\.cu$")
  if(NOT sources)
    return()
  endif()
  add_library(moebius_kernels_cuda STATIC ${sources})
  moebius_cuda_target(moebius_kernels_cuda)
  # Tile choices are plain C++, compiled without CUDA; programs on a GPU host need just these of the kernels room.
  file(GLOB tuning CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/tuning/*.cc)
  list(FILTER tuning EXCLUDE REGEX "_test\\.cc$")
  if(tuning)
    add_library(moebius_tuning STATIC ${tuning})
    target_include_directories(moebius_tuning PUBLIC ${CMAKE_SOURCE_DIR}/src)
    target_link_libraries(moebius_kernels_cuda PUBLIC moebius_tuning)
  endif()
  add_library(moebius_cuda_benches STATIC ${benches})
  moebius_cuda_target(moebius_cuda_benches)
  target_link_libraries(moebius_cuda_benches PUBLIC moebius_kernels_cuda)
  add_custom_target(cuda_programs)
  foreach(file ${programs})
    get_filename_component(program ${file} NAME_WE)
    add_executable(${program} EXCLUDE_FROM_ALL ${file})
    moebius_cuda_target(${program})
    target_link_libraries(${program} PRIVATE moebius_kernels_cuda)
    set_target_properties(${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/cuda)
    add_dependencies(cuda_programs ${program})
    if(MOEBIUS_TESTS)
      add_test(NAME ${program} COMMAND ${program})
      set_tests_properties(${program} PROPERTIES LABELS cuda)
    endif()
  endforeach()
endfunction()
