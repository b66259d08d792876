# How the house is built: one static library a room, headers that stand alone, and
# warnings that both compilers are asked for. Included once by the top CMakeLists.txt.

set(REPLICAD_WARNINGS -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes
    -Wold-style-definition -Wpointer-arith -Wcast-qual -Wvla -Wundef -Wformat=2
    -Wwrite-strings -Werror)
# Criterion's assertion macros trip it with gcc, so tests go without.
set(REPLICAD_PRODUCT_WARNINGS -Wconversion)

add_compile_definitions(_GNU_SOURCE _FILE_OFFSET_BITS=64)
add_compile_options(-fno-strict-aliasing -fno-common -fvisibility=hidden)
include_directories(${PROJECT_SOURCE_DIR})

option(REPLICAD_HARDEN "hardening flags of the release build" OFF)
if(REPLICAD_HARDEN)
    include(CheckCCompilerFlag)
    add_compile_options(-fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
        -fPIE)
    # Not every compiler and processor has these.
    foreach(flag stack-clash-protection cf-protection=full trivial-auto-var-init=zero)
        string(MAKE_C_IDENTIFIER REPLICAD_HAS_${flag} known)
        check_c_compiler_flag(-f${flag} ${known})
        if(${known})
            add_compile_options(-f${flag})
        endif()
    endforeach()
    add_link_options(-pie -Wl,-z,relro,-z,now,-z,noexecstack)
endif()

# Calls between the rooms are many and short: a command crosses some fifty functions.
option(REPLICAD_LTO "optimise across files, where the compiler can" OFF)
if(REPLICAD_LTO)
    include(CheckIPOSupported)
    check_ipo_supported(RESULT REPLICAD_LTO_WORKS LANGUAGES C)
    set(CMAKE_INTERPROCEDURAL_OPTIMIZATION ${REPLICAD_LTO_WORKS})
endif()

set(REPLICAD_SANITIZE "" CACHE STRING "-fsanitize= list, for the asan and tsan presets")
if(REPLICAD_SANITIZE)
    add_compile_options(-fsanitize=${REPLICAD_SANITIZE} -fno-sanitize-recover=all
        -fno-omit-frame-pointer -g)
    add_link_options(-fsanitize=${REPLICAD_SANITIZE})
endif()

option(REPLICAD_FUZZ "instrument for libFuzzer (clang), see tests/fuzz/fuzz.cmake" OFF)
if(REPLICAD_FUZZ)
    add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# room(NAME SOURCES a.c ... HEADERS a.h ... NEEDS lib ...)
# NEEDS are the rooms and libraries it may use; tests/house checks the includes.
function(room name)
    cmake_parse_arguments(ROOM "" "" "SOURCES;HEADERS;NEEDS" ${ARGN})
    if(ROOM_SOURCES)
        add_library(${name} STATIC ${ROOM_SOURCES})
        target_compile_options(${name} PRIVATE ${REPLICAD_WARNINGS}
            ${REPLICAD_PRODUCT_WARNINGS})
        target_link_libraries(${name} PUBLIC ${ROOM_NEEDS})
        set(kind PUBLIC)
    else()
        add_library(${name} INTERFACE)
        target_link_libraries(${name} INTERFACE ${ROOM_NEEDS})
        set(kind INTERFACE)
    endif()
    if(ROOM_HEADERS)
        target_sources(${name} ${kind} FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR}
            FILES ${ROOM_HEADERS})
        set_target_properties(${name} PROPERTIES VERIFY_INTERFACE_HEADER_SETS ON)
    endif()
endfunction()
