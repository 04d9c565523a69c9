// What device code may call, emulated. Included by cuda_runtime.h alone.
#pragma once

#include <cstdio>
#include <cstdlib>

inline void __syncthreads() {
  pymerge::emulated::arrive_and_wait(pymerge::emulated::block_barrier());
}
inline constexpr unsigned cuda_whole_warp = 0xffffffffu;
inline void cuda_check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "emulated CUDA: %s\n", what);
  std::abort();
}
inline void __syncwarp(unsigned mask = cuda_whole_warp) {
  cuda_check(mask == cuda_whole_warp, "only whole warps are emulated");
  pymerge::emulated::arrive_and_wait(pymerge::emulated::warp_barrier());
}
inline void __threadfence() {}

// Warps.
template <typename T>
inline std::uint64_t cuda_word(T value) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t));
  std::uint64_t word = 0;
  std::memcpy(&word, &value, sizeof value);
  return word;
}
template <typename T>
inline T cuda_shuffle(unsigned mask, T value, unsigned from) {
  cuda_check(mask == cuda_whole_warp, "only whole warps are emulated");
  const std::uint64_t* const words = pymerge::emulated::exchange(cuda_word(value));
  T other;
  std::memcpy(&other, &words[from % 32], sizeof other);
  return other;
}
template <typename T>
inline T __shfl_sync(unsigned mask, T value, int lane) {
  return cuda_shuffle(mask, value, static_cast<unsigned>(lane));
}
template <typename T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits) {
  return cuda_shuffle(mask, value, (cuda_thread() ^ static_cast<unsigned>(bits)) % 32);
}
template <typename T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned down) {
  const unsigned lane = cuda_thread() % 32;
  return cuda_shuffle(mask, value, lane + down < 32 ? lane + down : lane);
}
template <typename T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned up) {
  const unsigned lane = cuda_thread() % 32;
  return cuda_shuffle(mask, value, lane >= up ? lane - up : lane);
}
template <typename Fold>
inline unsigned cuda_fold(unsigned mask, unsigned value, unsigned start, const Fold& fold) {
  cuda_check(mask == cuda_whole_warp, "only whole warps are emulated");
  const std::uint64_t* const words = pymerge::emulated::exchange(value);
  for (int lane = 0; lane < 32; ++lane)
    start = fold(start, static_cast<unsigned>(words[lane]), lane);
  return start;
}
inline unsigned __ballot_sync(unsigned mask, int holds) {
  return cuda_fold(mask, holds != 0, 0u,
                   [](unsigned all, unsigned one, int lane) { return all | one << lane; });
}
inline int __any_sync(unsigned mask, int holds) { return __ballot_sync(mask, holds) != 0; }
inline int __all_sync(unsigned mask, int holds) { return __ballot_sync(mask, holds) == mask; }
inline unsigned __reduce_add_sync(unsigned mask, unsigned value) {
  return cuda_fold(mask, value, 0u, [](unsigned all, unsigned one, int) { return all + one; });
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value) {
  return cuda_fold(mask, value, 0u,
                   [](unsigned all, unsigned one, int) { return std::max(all, one); });
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value) {
  return cuda_fold(mask, value, 0u, [](unsigned all, unsigned one, int) { return all | one; });
}
// Which lanes have the same value.
inline unsigned __match_any_sync(unsigned mask, unsigned value) {
  return cuda_fold(mask, value, 0u, [value](unsigned all, unsigned one, int lane) {
    return all | static_cast<unsigned>(one == value) << lane;
  });
}

// Memory. A device faults at what is not aligned; hints change nothing.
template <typename T>
inline T cuda_load(const T* at) {
  cuda_check(reinterpret_cast<std::uintptr_t>(at) % alignof(T) == 0, "a load is not aligned");
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}
template <typename T>
inline T __ldcs(const T* at) {
  return cuda_load(at);
}
template <typename T>
inline T __ldg(const T* at) {
  return cuda_load(at);
}
template <typename T>
inline void __stcs(T* at, T value) {
  cuda_check(reinterpret_cast<std::uintptr_t>(at) % alignof(T) == 0, "a store is not aligned");
  std::memcpy(at, &value, sizeof value);
}
template <typename T>
inline T atomicAdd(T* at, T value) {
  return std::atomic_ref<T>(*at).fetch_add(value, std::memory_order_relaxed);
}
template <typename T>
inline T atomicOr(T* at, T value) {
  return std::atomic_ref<T>(*at).fetch_or(value, std::memory_order_relaxed);
}
template <typename T>
inline T atomicCAS(T* at, T expected, T value) {
  std::atomic_ref<T>(*at).compare_exchange_strong(expected, value, std::memory_order_relaxed);
  return expected;
}
template <typename T>
inline T atomicMax(T* at, T value) {
  std::atomic_ref<T> cell(*at);
  T old = cell.load(std::memory_order_relaxed);
  while (old < value && !cell.compare_exchange_weak(old, value, std::memory_order_relaxed)) {
  }
  return old;
}
template <typename T>
inline T atomicMin(T* at, T value) {
  std::atomic_ref<T> cell(*at);
  T old = cell.load(std::memory_order_relaxed);
  while (value < old && !cell.compare_exchange_weak(old, value, std::memory_order_relaxed)) {
  }
  return old;
}

// Numbers.
inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int __popcll(unsigned long long bits) { return std::popcount(bits); }
inline int __clz(int bits) { return std::countl_zero(static_cast<unsigned>(bits)); }
inline int __clzll(long long bits) {
  return std::countl_zero(static_cast<unsigned long long>(bits));
}
inline int __ffs(int bits) {
  return bits == 0 ? 0 : std::countr_zero(static_cast<unsigned>(bits)) + 1;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<std::uint64_t>(a) * b >> 32);
}
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline long long __double_as_longlong(double value) { return std::bit_cast<long long>(value); }
inline double __longlong_as_double(long long bits) { return std::bit_cast<double>(bits); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __fmaf_rn(float a, float b, float c) { return std::fmaf(a, b, c); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
