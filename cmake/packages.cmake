# Where the libraries come from: Debian packages, the LibTorch wheel in .deps/, and our Rust crate.
find_package(Threads REQUIRED)
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(absl REQUIRED)
find_package(RocksDB REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(HTTPLIB REQUIRED IMPORTED_TARGET cpp-httplib)
pkg_check_modules(RE2 REQUIRED IMPORTED_TARGET re2)
pkg_check_modules(GMPXX REQUIRED IMPORTED_TARGET gmpxx)
# FLINT and Arb; Debian 12 has them as two libraries and without package files.
find_path(FLINT_INCLUDE_DIR flint/fmpq.h REQUIRED)
find_library(FLINT_LIBRARY flint REQUIRED)
find_library(ARB_LIBRARY flint-arb REQUIRED)
add_library(e3_flint INTERFACE)
target_include_directories(e3_flint SYSTEM INTERFACE ${FLINT_INCLUDE_DIR})
target_link_libraries(e3_flint INTERFACE ${ARB_LIBRARY} ${FLINT_LIBRARY} PkgConfig::GMPXX)

# LibTorch: two CPU libraries of the wheel. Its include folder carries another protobuf, so it is searched last.
if(E3_TORCH)
  set(E3_LIBTORCH "${PROJECT_SOURCE_DIR}/.deps/libtorch" CACHE PATH "Folder with torch/ and nvidia/ of the PyPI wheels")
  set(torch_root "${E3_LIBTORCH}/torch")
  if(NOT EXISTS "${torch_root}/lib/libtorch_cpu.so")
    message(FATAL_ERROR "LibTorch is not at ${torch_root}: run 'make setup'")
  endif()
  add_library(e3_torch INTERFACE)
  target_compile_options(e3_torch INTERFACE
    "SHELL:-idirafter ${torch_root}/include" "SHELL:-idirafter ${torch_root}/include/torch/csrc/api/include"
    -fopenmp -D_GLIBCXX_USE_CXX11_ABI=1 -Wno-unknown-pragmas)
  # libgomp is the wheel's own, so that there is one OpenMP runtime in the process.
  target_link_libraries(e3_torch INTERFACE
    "${torch_root}/lib/libtorch_cpu.so" "${torch_root}/lib/libc10.so" "${torch_root}/lib/libgomp.so.1")
  target_link_options(e3_torch INTERFACE
    "LINKER:-rpath,${torch_root}/lib" "LINKER:-rpath,${E3_LIBTORCH}/nvidia/cu13/lib"
    "LINKER:-rpath-link,${E3_LIBTORCH}/nvidia/cu13/lib" "LINKER:--allow-shlib-undefined")
  if(E3_CUDA)
    target_compile_definitions(e3_torch INTERFACE E3_CUDA)
    # Nothing calls them by name: LibTorch finds its GPU operators in them once they are loaded.
    target_link_libraries(e3_torch INTERFACE
      "-Wl,--no-as-needed" "${torch_root}/lib/libtorch_cuda.so" "${torch_root}/lib/libc10_cuda.so" "-Wl,--as-needed")
  endif()
endif()

# The Rust crate behind model/text.h. Cargo decides itself what is out of date.
set(e3_text_lib "${CMAKE_BINARY_DIR}/cargo/release/libe3_text.a")
add_custom_command(
  OUTPUT ${e3_text_lib}
  COMMAND ${CMAKE_COMMAND} -E env --unset=CC --unset=CXX cargo build --release --locked --quiet
          --manifest-path ${PROJECT_SOURCE_DIR}/model/text/Cargo.toml --target-dir ${CMAKE_BINARY_DIR}/cargo
  DEPENDS model/text/Cargo.toml model/text/Cargo.lock
          model/text/src/lib.rs model/text/src/parquet_rows.rs model/text/src/tokenizer.rs model/text/src/chat_template.rs
  COMMENT "Building the tokenizer crate (cargo)" VERBATIM)
add_custom_target(e3_text_build DEPENDS ${e3_text_lib})
add_library(e3_text INTERFACE)
add_dependencies(e3_text e3_text_build)
target_link_libraries(e3_text INTERFACE ${e3_text_lib} dl m Threads::Threads)
