// One name per helper; the level that is being compiled decides which code it is.
#pragma once

#include "common/simd_plain.h"

#if defined(__AVX512F__) && defined(__AVX512VL__)
#include "common/simd_v4.h"
namespace pymerge {
namespace {
namespace simd = v4;
}  // namespace
}  // namespace pymerge
#elif defined(__AVX2__)
#include "common/simd_v3.h"
namespace pymerge {
namespace {
namespace simd = v3;
}  // namespace
}  // namespace pymerge
#else
namespace pymerge {
namespace {
namespace simd = plain;
}  // namespace
}  // namespace pymerge
#endif
