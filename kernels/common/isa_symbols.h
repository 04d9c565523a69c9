// How one kernel source becomes one object per instruction-set level. CMake compiles cpu.cc once a
// level with PYMERGE_LEVEL=generic|v2|v3|v4; each object exports one constant, <kernel>_<level>,
// and keeps everything else in an anonymous namespace: an inline function shared between levels
// could be merged by the linker into its AVX-512 copy and then run on a machine without AVX-512.
#pragma once

#define PYMERGE_JOIN_(a, b) a##_##b
#define PYMERGE_JOIN(a, b) PYMERGE_JOIN_(a, b)

#if defined(PYMERGE_ONLY_LEVEL)  // builds with sanitizers, which would take long for all
#define PYMERGE_DECLARE_LEVELS(Type, kernel) \
  extern const Type PYMERGE_JOIN(kernel, PYMERGE_ONLY_LEVEL)
#define PYMERGE_SELECT_LEVEL(kernel, level) \
  (static_cast<void>(level), PYMERGE_JOIN(kernel, PYMERGE_ONLY_LEVEL))
#elif defined(__x86_64__)
#define PYMERGE_DECLARE_LEVELS(Type, kernel) \
  extern const Type kernel##_generic;        \
  extern const Type kernel##_v2;             \
  extern const Type kernel##_v3;             \
  extern const Type kernel##_v4
#define PYMERGE_SELECT_LEVEL(kernel, level)            \
  ((level) == ::pymerge::IsaLevel::kV4   ? kernel##_v4 \
   : (level) == ::pymerge::IsaLevel::kV3 ? kernel##_v3 \
   : (level) == ::pymerge::IsaLevel::kV2 ? kernel##_v2 \
                                         : kernel##_generic)
#else
#define PYMERGE_DECLARE_LEVELS(Type, kernel) extern const Type kernel##_generic
#define PYMERGE_SELECT_LEVEL(kernel, level) (static_cast<void>(level), kernel##_generic)
#endif

// The constant that this object exports.
#define PYMERGE_EXPORT(Type, kernel)                     \
  extern const Type PYMERGE_JOIN(kernel, PYMERGE_LEVEL); \
  const Type PYMERGE_JOIN(kernel, PYMERGE_LEVEL)
