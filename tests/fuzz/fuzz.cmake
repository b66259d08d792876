# fuzz_test(NAME SOURCES a.c ... NEEDS lib ... CORPUS folder [LENGTH bytes])
#
# SOURCES define LLVMFuzzerTestOneInput() and nothing that runs by itself. From them come
#   NAME_replay   every build, every compiler: each file of the saved corpus once
#   NAME          libFuzzer's program, where the build is made for it (preset fuzz, clang)
#   fuzz_NAME     the test: the latter for REPLICAD_FUZZ_SECONDS (5) from the corpus, seed
#                 printed, REPLICAD_SEED taken. A build that is not made for fuzzing makes one
#                 beside itself; without clang the test is skipped.
# A find is kept in BUILD/fuzz_finds/NAME: copy it into the corpus with its fix.

find_program(REPLICAD_FUZZ_CLANG NAMES clang-14 clang)
set(fuzz_here ${CMAKE_CURRENT_LIST_DIR})

if(REPLICAD_FUZZ)
    add_custom_target(fuzzers)
    set(fuzz_build ${PROJECT_BINARY_DIR})
else()
    set(fuzz_build ${PROJECT_BINARY_DIR}/fuzz)
endif()

# A sanitized build replays only: the fuzzers have ASan and UBSan of their own.
if(REPLICAD_FUZZ OR (REPLICAD_FUZZ_CLANG AND NOT REPLICAD_SANITIZE))
    set(fuzz_runs ON)
    add_test(NAME fuzz_build COMMAND ${fuzz_here}/run build ${PROJECT_SOURCE_DIR}
        ${fuzz_build} "${REPLICAD_FUZZ_CLANG}")
    set_tests_properties(fuzz_build PROPERTIES FIXTURES_SETUP fuzzers TIMEOUT 600)
endif()

function(fuzz_test name)
    cmake_parse_arguments(FUZZ "" "CORPUS;LENGTH" "SOURCES;NEEDS" ${ARGN})
    if(NOT FUZZ_LENGTH)
        set(FUZZ_LENGTH 4096)
    endif()
    get_filename_component(corpus ${FUZZ_CORPUS} ABSOLUTE)

    plain_test(${name}_replay SOURCES ${FUZZ_SOURCES} ${fuzz_here}/replay.c
        NEEDS ${FUZZ_NEEDS} ARGUMENTS ${corpus})
    if(REPLICAD_FUZZ)
        add_executable(${name} ${FUZZ_SOURCES})
        target_compile_options(${name} PRIVATE ${REPLICAD_WARNINGS})
        target_link_libraries(${name} PRIVATE ${FUZZ_NEEDS})
        target_link_options(${name} PRIVATE -fsanitize=fuzzer)
        set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY
            ${PROJECT_BINARY_DIR}/fuzzers)
        add_dependencies(fuzzers ${name})
    endif()
    if(fuzz_runs)
        add_test(NAME fuzz_${name} COMMAND ${fuzz_here}/run one
            ${fuzz_build}/fuzzers/${name} ${corpus}
            ${PROJECT_BINARY_DIR}/fuzz_finds/${name} ${FUZZ_LENGTH})
        set_tests_properties(fuzz_${name} PROPERTIES FIXTURES_REQUIRED fuzzers
            TIMEOUT 300)
    endif()
endfunction()
