# sluice_cc_library(<folder> SRCS ... HDRS ... [DEPS ...] [FAILPOINTS ...] [TORCH | RPC])
#   One folder is one library: target sluice_<folder with _>, alias sluice::<folder with _>.
#   TORCH is the only way to LibTorch's headers, RPC the only way to gRPC and protobuf.
#   FAILPOINTS: those of SRCS that include common/failpoint/failpoint.h. They alone see the switch of the preset faults:
#   all others are compiled with the same words as in other builds, and come out of the compiler's cache.
# sluice_cc_binary(<name> SRCS ... DEPS ... [FAILPOINTS ...] [TORCH] [RPC])
# sluice_cc_test(<folder> SRCS ... DEPS ... [TORCH] [RPC] [PLACED] [GPU] [LABELS ...])
#   PLACED: the policies of the tests are placed by tests/testing/placement.h, so the binary runs once more for the
#   device-generic path on the processor, once on the fake device, and with SLUICE_GPU_TESTS on a GPU.
#   GPU: the binary runs once more on a GPU, with SLUICE_GPU_TESTS.
#   One binary a folder; a torch binary is one CTest entry, as loading LibTorch takes 0.2 s.

set(_sluice_root ${CMAKE_SOURCE_DIR})
find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  # Without the sloppiness nothing with the precompiled header is cached. Paths below the build folder (generated code,
  # that header) are told to ccache relative to it, so that a second build folder finds what the first one compiled.
  # Who has set a base_dir already keeps it.
  set(_ccache_environment CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime)
  execute_process(COMMAND ${CCACHE_PROGRAM} --get-config base_dir OUTPUT_VARIABLE _ccache_base_dir
                  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(NOT _ccache_base_dir)
    list(APPEND _ccache_environment CCACHE_BASEDIR=${CMAKE_BINARY_DIR})
    # ccache 4.7 takes a path that begins base_dir for one below it, and would tell the root relative to each build folder.
    set(_sluice_root ${CMAKE_SOURCE_DIR}/.)
  endif()
  foreach(lang C CXX)
    set(CMAKE_${lang}_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env ${_ccache_environment} ${CCACHE_PROGRAM})
  endforeach()
endif()

set(_sluice_failpoint_switch ${CMAKE_BINARY_DIR}/failpoint_switch)
if(SLUICE_FAILPOINTS)
  file(CONFIGURE OUTPUT ${_sluice_failpoint_switch}/failpoint_switch.h CONTENT "#define SLUICE_HAS_FAILPOINTS 1\n")
else()
  file(CONFIGURE OUTPUT ${_sluice_failpoint_switch}/failpoint_switch.h CONTENT "#define SLUICE_HAS_FAILPOINTS 0\n")
endif()

add_library(sluice_options INTERFACE)
# A designated initialiser leaves the other fields at their defaults on purpose.
target_compile_options(sluice_options INTERFACE -Wall -Wextra -Werror -Wno-missing-field-initializers)
target_include_directories(sluice_options INTERFACE ${_sluice_root})
# For all, not only for who links a library that asks for it: a precompiled header is for one set of flags.
target_compile_options(sluice_options INTERFACE -pthread)
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  target_compile_options(sluice_options INTERFACE -Wthread-safety)
endif()
if(SLUICE_SANITIZE)
  target_compile_options(sluice_options INTERFACE -fsanitize=${SLUICE_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(sluice_options INTERFACE -fsanitize=${SLUICE_SANITIZE})
endif()
if(SLUICE_FUZZ)
  target_compile_options(sluice_options INTERFACE -fsanitize=fuzzer-no-link -fno-sanitize-recover=all)
endif()

# Precompiled headers, one for each kind of file: what nearly every file of that kind includes, read once. Without them
# half of a build would be spent on reading the same headers. A source still includes what it uses.
set(_sluice_pch_core <algorithm> <functional> <map> <memory> <optional> <string> <utility> <vector>
    <absl/status/statusor.h> <absl/strings/str_cat.h> <absl/time/time.h> <absl/types/span.h>)
# Not <torch/torch.h>: with its layers, optimizers and loaders each file takes 2 s longer.
set(_sluice_pch_torch <torch/types.h> <torch/utils.h> <torch/autograd.h>)
set(_sluice_pch_rpc <grpcpp/grpcpp.h> <google/protobuf/generated_message_reflection.h> <google/protobuf/map_entry.h>
    <google/protobuf/message.h> <google/protobuf/repeated_field.h> <google/protobuf/unknown_field_set.h>)
set(_sluice_pch_test <gmock/gmock.h> <gtest/gtest.h>)
# A fifth less to compile of a test; what is tested keeps its optimisation. g++ 12 warns without cause of joined strings
# (its bug 105329), which it keeps to itself about a system header that was not precompiled.
set(_sluice_test_options $<$<CONFIG:Release>:-O1>
    $<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds$<SEMICOLON>-Wno-restrict$<SEMICOLON>-Wno-stringop-overflow>)

function(_sluice_add_pch kind)
  cmake_parse_arguments(ARG "" "" "HEADERS;DEPS;OPTIONS" ${ARGN})
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/pch/${kind}.cc CONTENT "")
  add_library(sluice_pch_${kind} OBJECT ${CMAKE_BINARY_DIR}/pch/${kind}.cc)
  target_link_libraries(sluice_pch_${kind} PRIVATE sluice_options ${ARG_DEPS})
  target_compile_options(sluice_pch_${kind} PRIVATE ${ARG_OPTIONS})
  target_precompile_headers(sluice_pch_${kind} PRIVATE ${ARG_HEADERS})
endfunction()

_sluice_add_pch(core HEADERS ${_sluice_pch_core} DEPS absl::statusor absl::strings absl::time absl::span)
if(SLUICE_BUILD_TESTS)
  _sluice_add_pch(test HEADERS ${_sluice_pch_core} ${_sluice_pch_test} OPTIONS ${_sluice_test_options}
                  DEPS absl::statusor absl::strings absl::time absl::span GTest::gmock)
endif()
if(NOT SLUICE_CORES_ONLY)
  _sluice_add_pch(rpc HEADERS ${_sluice_pch_core} ${_sluice_pch_rpc} DEPS gRPC::grpc++ protobuf::libprotobuf)
  # For tests too, which have no optimisation of their own here: a second one of this size costs more than it saves.
  _sluice_add_pch(torch HEADERS ${_sluice_pch_torch} ${_sluice_pch_core} DEPS sluice::torch absl::statusor)
  if(SLUICE_BUILD_TESTS)
    _sluice_add_pch(rpc_test HEADERS ${_sluice_pch_core} ${_sluice_pch_rpc} ${_sluice_pch_test}
                    OPTIONS ${_sluice_test_options} DEPS gRPC::grpc++ protobuf::libprotobuf GTest::gmock)
  endif()
endif()

# `pch`: core, or test for a test. A target of both LibTorch and gRPC takes neither's header: LibTorch ships another
# protobuf.
function(_sluice_kind target torch rpc pch)
  if(torch)
    target_link_libraries(${target} PUBLIC sluice::torch)
  endif()
  if(rpc)
    target_link_libraries(${target} PUBLIC sluice::proto gRPC::grpc++ protobuf::libprotobuf)
  endif()
  if(torch AND NOT rpc)
    set(pch torch)
  elseif(rpc AND NOT torch)
    string(REPLACE core rpc pch ${pch})
    string(REPLACE test rpc_test pch ${pch})
  elseif(torch AND rpc)
    set(pch core)
  endif()
  target_precompile_headers(${target} REUSE_FROM sluice_pch_${pch})
endfunction()

function(_sluice_failpoints)
  if(ARGN)
    set_source_files_properties(${ARGN} PROPERTIES INCLUDE_DIRECTORIES ${_sluice_failpoint_switch})
  endif()
endfunction()

function(sluice_cc_library folder)
  cmake_parse_arguments(ARG "TORCH;RPC" "" "SRCS;HDRS;DEPS;FAILPOINTS" ${ARGN})
  if((ARG_TORCH OR ARG_RPC) AND SLUICE_CORES_ONLY)
    return()
  endif()
  if(ARG_TORCH AND ARG_RPC)
    message(FATAL_ERROR "${folder}: a library is (T), (R) or neither, never both (docs/architecture.md)")
  endif()
  _sluice_failpoints(${ARG_FAILPOINTS})
  string(REPLACE "/" "_" name ${folder})
  string(REGEX REPLACE "^common_" "" name ${name})
  if(ARG_SRCS)
    add_library(sluice_${name} STATIC ${ARG_SRCS} ${ARG_HDRS})
    target_link_libraries(sluice_${name} PRIVATE sluice_options PUBLIC ${ARG_DEPS})
    _sluice_kind(sluice_${name} "${ARG_TORCH}" "${ARG_RPC}" core)
  else()
    add_library(sluice_${name} INTERFACE ${ARG_HDRS})
    target_link_libraries(sluice_${name} INTERFACE ${ARG_DEPS})
  endif()
  add_library(sluice::${name} ALIAS sluice_${name})
endfunction()

function(_sluice_executable target torch rpc pch)
  # The precompiled headers are shared with libraries, so executables take their -fPIC instead of -fPIE.
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(${target} PRIVATE -fPIC)
  if(torch)
    set_target_properties(${target} PROPERTIES BUILD_RPATH "${SLUICE_TORCH_ROOT}/lib" INSTALL_RPATH "${SLUICE_TORCH_ROOT}/lib")
    target_link_options(${target} PRIVATE -Wl,--no-as-needed)
  endif()
  _sluice_kind(${target} "${torch}" "${rpc}" ${pch})
endfunction()

function(sluice_cc_binary name)
  cmake_parse_arguments(ARG "TORCH;RPC" "" "SRCS;DEPS;FAILPOINTS" ${ARGN})
  if((ARG_TORCH OR ARG_RPC) AND SLUICE_CORES_ONLY)
    return()
  endif()
  _sluice_failpoints(${ARG_FAILPOINTS})
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE sluice_options ${ARG_DEPS})
  _sluice_executable(${name} "${ARG_TORCH}" "${ARG_RPC}" core)
endfunction()

function(sluice_cc_test folder)
  cmake_parse_arguments(ARG "TORCH;RPC;PLACED;GPU" "" "SRCS;DEPS;LABELS" ${ARGN})
  if((ARG_TORCH OR ARG_RPC) AND SLUICE_CORES_ONLY)
    return()
  endif()
  string(REPLACE "/" "_" name ${folder})
  add_executable(${name}_test ${ARG_SRCS})
  set_target_properties(${name}_test PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_link_libraries(${name}_test PRIVATE sluice_options ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name}_test PRIVATE SLUICE_SOURCE_DIR="${CMAKE_SOURCE_DIR}" SLUICE_BINARY_DIR="${CMAKE_BINARY_DIR}")
  _sluice_executable(${name}_test "${ARG_TORCH}" "${ARG_RPC}" test)
  if(NOT ARG_TORCH)  # torch's precompiled header is shared with the libraries
    target_compile_options(${name}_test PRIVATE ${_sluice_test_options})
  endif()
  if(ARG_TORCH OR ARG_RPC)
    add_test(NAME ${name} COMMAND ${name}_test)
    set_tests_properties(${name} PROPERTIES TIMEOUT 600 LABELS "${ARG_LABELS}" ENVIRONMENT "OMP_NUM_THREADS=1")
    if(ARG_PLACED)
      foreach(placement generic fake)
        add_test(NAME ${name}.${placement} COMMAND ${name}_test)
        set_tests_properties(${name}.${placement} PROPERTIES TIMEOUT 600 LABELS "${ARG_LABELS}"
                             ENVIRONMENT "OMP_NUM_THREADS=1;SLUICE_TEST_PLACEMENT=${placement}")
      endforeach()
    endif()
    if((ARG_PLACED OR ARG_GPU) AND SLUICE_GPU_TESTS)
      # One GPU, one test at a time: memory and clocks are shared.
      add_test(NAME ${name}.cuda COMMAND ${name}_test)
      set_tests_properties(${name}.cuda PROPERTIES TIMEOUT 1200 LABELS gpu RESOURCE_LOCK gpu
                           ENVIRONMENT "OMP_NUM_THREADS=1;SLUICE_TEST_PLACEMENT=cuda:0")
    endif()
  else()
    gtest_discover_tests(${name}_test TEST_PREFIX ${name}. DISCOVERY_MODE PRE_TEST
                         PROPERTIES TIMEOUT 120 LABELS "${ARG_LABELS}")
  endif()
endfunction()

add_custom_target(sluice_fuzzers)

# sluice_fuzz_target(<name> SRCS ... DEPS ... [RPC])
#   With its corpus in tests/fuzz/corpus/<name>: a libFuzzer binary with SLUICE_FUZZ, else a test that repeats the corpus
#   and mutations of it.
function(sluice_fuzz_target name)
  cmake_parse_arguments(ARG "RPC" "" "SRCS;DEPS" ${ARGN})
  if(ARG_RPC AND SLUICE_CORES_ONLY)
    return()
  endif()
  add_executable(fuzz_${name} ${ARG_SRCS})
  add_dependencies(sluice_fuzzers fuzz_${name})
  set_target_properties(fuzz_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
  target_link_libraries(fuzz_${name} PRIVATE sluice_options ${ARG_DEPS} absl::strings)
  _sluice_executable(fuzz_${name} "" "${ARG_RPC}" core)
  if(SLUICE_FUZZ)
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  else()
    target_link_libraries(fuzz_${name} PRIVATE sluice_fuzz_replay)
    add_test(NAME fuzz.${name} COMMAND fuzz_${name} ${CMAKE_CURRENT_SOURCE_DIR}/corpus/${name})
    set_tests_properties(fuzz.${name} PROPERTIES TIMEOUT 120)
  endif()
endfunction()

add_custom_target(sluice_benchmarks)

# sluice_cc_benchmark(<folder> SRCS ... DEPS ... [TORCH] [RPC])
#   google-benchmark, built into build/benchmarks with SLUICE_BUILD_BENCHMARKS; `./sluice bench` runs them. They report
#   and assert nothing.
function(sluice_cc_benchmark folder)
  cmake_parse_arguments(ARG "TORCH;RPC" "" "SRCS;DEPS" ${ARGN})
  if((ARG_TORCH OR ARG_RPC) AND SLUICE_CORES_ONLY)
    return()
  endif()
  string(REPLACE "/" "_" name ${folder})
  add_executable(${name}_benchmark ${ARG_SRCS})
  add_dependencies(sluice_benchmarks ${name}_benchmark)
  set_target_properties(${name}_benchmark PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/benchmarks)
  target_link_libraries(${name}_benchmark PRIVATE sluice_options ${ARG_DEPS} benchmark::benchmark_main)
  target_compile_definitions(${name}_benchmark PRIVATE SLUICE_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  _sluice_executable(${name}_benchmark "${ARG_TORCH}" "${ARG_RPC}" core)
  add_test(NAME bench.${name} COMMAND ${name}_benchmark)
  set_tests_properties(bench.${name} PROPERTIES TIMEOUT 1200 LABELS bench ENVIRONMENT "OMP_NUM_THREADS=1")
endfunction()

# sluice_moto_test(<folder> SRCS ... DEPS ...)
#   One CTest entry, <folder>_moto, which runs the binary against moto's S3 (tests/testing/moto_server.py). Skipped, with
#   the reason, where moto is not installed.
function(sluice_moto_test folder)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  if(SLUICE_CORES_ONLY)
    return()  # the interpreter with the wheels is found through LibTorch's
  endif()
  string(REPLACE "/" "_" name ${folder})
  add_executable(${name}_moto_test ${ARG_SRCS})
  set_target_properties(${name}_moto_test PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_link_libraries(${name}_moto_test PRIVATE sluice_options ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  _sluice_executable(${name}_moto_test "" "" test)
  target_compile_options(${name}_moto_test PRIVATE ${_sluice_test_options})
  cmake_path(SET python NORMALIZE "${SLUICE_TORCH_ROOT}/../../../../bin/python")
  if(NOT EXISTS "${python}")
    find_package(Python3 COMPONENTS Interpreter REQUIRED)
    set(python ${Python3_EXECUTABLE})
  endif()
  add_test(NAME ${name}_moto COMMAND ${python} -B ${CMAKE_SOURCE_DIR}/tests/testing/moto_server.py $<TARGET_FILE:${name}_moto_test>)
  set_tests_properties(${name}_moto PROPERTIES TIMEOUT 300 SKIP_RETURN_CODE 77)
endfunction()
