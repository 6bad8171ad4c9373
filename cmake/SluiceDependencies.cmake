# Third-party packages. Everything else is found before LibTorch on purpose: LibTorch ships its own
# protobuf and fmt headers, and only the (T) targets may see them (docs/architecture.md).
find_package(Threads REQUIRED)
find_package(CURL 7.86 REQUIRED)  # signs by CURLOPT_AWS_SIGV4 with our own digest of the payload
find_package(OpenSSL REQUIRED)
find_package(absl REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(spdlog REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
find_package(pugixml REQUIRED)
find_package(Eigen3 REQUIRED NO_MODULE)
find_package(SQLite3 REQUIRED)
find_package(zstd CONFIG REQUIRED)
find_path(XXHASH_INCLUDE_DIR xxhash.h REQUIRED)
if(SLUICE_BUILD_TESTS)
  find_package(GTest REQUIRED)
  include(GoogleTest)
endif()
if(SLUICE_BUILD_BENCHMARKS)
  find_package(benchmark REQUIRED)
endif()

if(NOT SLUICE_CORES_ONLY)
  find_package(CLI11 CONFIG REQUIRED)
  find_package(Protobuf REQUIRED)
  find_package(gRPC CONFIG REQUIRED)
  find_program(GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)

  # LibTorch from the pinned PyPI wheel. Own imported targets, because find_package(Torch) of a CUDA
  # wheel asks every consumer for a CUDA toolkit. CPU builds need libc10 and libtorch_cpu alone.
  set(SLUICE_TORCH_ROOT "" CACHE PATH "The folder torch/ of the PyPI wheel; default: the one in .venv")
  if(NOT SLUICE_TORCH_ROOT)
    file(GLOB _torch_candidates "${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch")
    list(POP_FRONT _torch_candidates _torch_root)
    set(SLUICE_TORCH_ROOT "${_torch_root}" CACHE PATH "" FORCE)
  endif()
  if(NOT EXISTS "${SLUICE_TORCH_ROOT}/lib/libtorch_cpu.so")
    message(FATAL_ERROR "LibTorch was not found at '${SLUICE_TORCH_ROOT}'. Run './sluice build', which "
                        "installs the pinned wheel, or pass -DSLUICE_TORCH_ROOT=<site-packages>/torch.")
  endif()
  foreach(lib c10 torch_cpu)
    add_library(sluice_import_${lib} SHARED IMPORTED)
    set_target_properties(sluice_import_${lib} PROPERTIES
      IMPORTED_LOCATION "${SLUICE_TORCH_ROOT}/lib/lib${lib}.so"
      INTERFACE_INCLUDE_DIRECTORIES
        "${SLUICE_TORCH_ROOT}/include;${SLUICE_TORCH_ROOT}/include/torch/csrc/api/include")
  endforeach()
  # The stub headers stand in for Gloo's, which the wheel leaves out although it exports the symbols.
  add_library(sluice_torch INTERFACE)
  add_library(sluice::torch ALIAS sluice_torch)
  target_include_directories(sluice_torch SYSTEM INTERFACE ${CMAKE_SOURCE_DIR}/cmake/stubs)
  target_compile_definitions(sluice_torch INTERFACE USE_DISTRIBUTED USE_C10D_GLOO)
  # The wheel is built for manylinux_2_28 and resolves its CUDA companions by its own RPATH.
  target_link_libraries(sluice_torch INTERFACE sluice_import_torch_cpu sluice_import_c10)
  target_link_options(sluice_torch INTERFACE -Wl,--allow-shlib-undefined)
endif()
