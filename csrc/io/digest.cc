#include "io/digest.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <thread>

#include "runtime/aligned_buffer.h"
#include "runtime/isa.h"

#ifdef __SSE2__
#include <immintrin.h>
#endif

namespace pymerge {
namespace {

constexpr int kLanes = 8;
constexpr int kWords = Digest::kChunk / 8;
constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15;

constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

struct Keys {
  constexpr Keys() {
    for (int i = 0; i < kWords; ++i) words[i] = mix((static_cast<std::uint64_t>(i) + 1) * kGolden);
  }
  alignas(64) std::uint64_t words[kWords]{};
};
constexpr Keys kKeys;

using Lanes = std::uint64_t[kLanes];

#ifdef __SSE2__
// Two lanes a vector; the plain loop below is what it does.
void add_up(const std::byte* chunk, Lanes& lanes) {
  __m128i sums[kLanes / 2]{};
  for (int i = 0; i < kWords; i += kLanes) {
#pragma GCC unroll 4  // or the sums live in memory: 15 GB/s instead of 22
    for (int pair = 0; pair < kLanes / 2; ++pair) {
      const int at = i + 2 * pair;
      const __m128i word = _mm_loadu_si128(reinterpret_cast<const __m128i*>(chunk + at * 8));
      const __m128i key = _mm_load_si128(reinterpret_cast<const __m128i*>(kKeys.words + at));
      const __m128i mixed = _mm_xor_si128(word, key);
      const __m128i product = _mm_mul_epu32(mixed, _mm_srli_epi64(mixed, 32));
      const __m128i swapped = _mm_shuffle_epi32(word, _MM_SHUFFLE(1, 0, 3, 2));
      sums[pair] = _mm_add_epi64(sums[pair], _mm_add_epi64(product, swapped));
    }
  }
#pragma GCC unroll 4
  for (int pair = 0; pair < kLanes / 2; ++pair) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(lanes + 2 * pair), sums[pair]);
  }
}

// The same, four lanes a vector, where the processor has them: 1.7 times as fast.
__attribute__((target("avx2"))) inline __m256i add_four(__m256i sum, const std::byte* chunk,
                                                        int at) {
  const __m256i word = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(chunk + at * 8));
  const __m256i key = _mm256_load_si256(reinterpret_cast<const __m256i*>(kKeys.words + at));
  const __m256i mixed = _mm256_xor_si256(word, key);
  const __m256i product = _mm256_mul_epu32(mixed, _mm256_srli_epi64(mixed, 32));
  const __m256i swapped = _mm256_shuffle_epi32(word, _MM_SHUFFLE(1, 0, 3, 2));
  return _mm256_add_epi64(sum, _mm256_add_epi64(product, swapped));
}

__attribute__((target("avx2"))) void add_up_v3(const std::byte* chunk, Lanes& lanes) {
  __m256i low{};
  __m256i high{};
  for (int i = 0; i < kWords; i += kLanes) {
    low = add_four(low, chunk, i);
    high = add_four(high, chunk, i + kLanes / 2);
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), low);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes + kLanes / 2), high);
}

#else
void add_up(const std::byte* chunk, Lanes& lanes) {
  std::uint64_t sums[kLanes]{};
  for (int i = 0; i < kWords; i += kLanes) {
    std::uint64_t words[kLanes];
    std::memcpy(words, chunk + i * 8, sizeof(words));
    for (int l = 0; l < kLanes; ++l) {
      const std::uint64_t mixed = words[l] ^ kKeys.words[i + l];
      sums[l] += (mixed & 0xFFFFFFFF) * (mixed >> 32) + words[l ^ 1];
    }
  }
  std::memcpy(lanes, sums, sizeof(sums));
}

void add_up_v3(const std::byte* chunk, Lanes& lanes) { add_up(chunk, lanes); }
#endif

void add_chunk(std::int64_t number, const std::byte* chunk, bool wide,
               std::array<std::uint64_t, 2>& sums) {
  Lanes lanes;
  if (wide) {
    add_up_v3(chunk, lanes);
  } else {
    add_up(chunk, lanes);
  }
  for (int s = 0; s < 2; ++s) {
    std::uint64_t sum =
        (2 * static_cast<std::uint64_t>(number) + static_cast<unsigned>(s)) * kGolden;
    for (int l = 0; l < kLanes; ++l) sum += mix(lanes[l] ^ kKeys.words[kLanes * s + l]);
    sums[static_cast<std::size_t>(s)] += mix(sum);
  }
}

}  // namespace

void Digest::add(std::int64_t begin, std::int64_t length, const std::byte* data) {
  const std::int64_t end = begin + length;
  const std::int64_t first = std::min((begin + kChunk - 1) / kChunk * kChunk, end);
  const std::int64_t last = std::max(end / kChunk * kChunk, first);
  Halves sums{};
  const bool wide = active_isa() >= IsaLevel::kV3;
  for (std::int64_t at = first; at < last; at += kChunk) {
    add_chunk(at / kChunk, data + (at - begin), wide, sums);
  }
  const std::lock_guard lock(mutex_);
  for (std::size_t s = 0; s < 2; ++s) sums_[s] += sums[s];
  add_fragment(begin, first - begin, data);
  add_fragment(last, end - last, data + (last - begin));
}

void Digest::add_fragment(std::int64_t begin, std::int64_t length, const std::byte* data) {
  if (length == 0) return;
  const std::int64_t number = begin / kChunk;
  Fragment& fragment = fragments_[number];
  std::memcpy(fragment.bytes.data() + begin % kChunk, data, static_cast<std::size_t>(length));
  fragment.came += length;
  if (fragment.came < std::min(kChunk, nbytes_ - number * kChunk)) return;
  add_chunk(number, fragment.bytes.data(), false, sums_);
  fragments_.erase(number);
}

std::string Digest::finish() const {
  char text[33];
  std::uint64_t halves[2];
  for (std::size_t s = 0; s < 2; ++s) {
    halves[s] = mix(sums_[s] ^ mix((static_cast<std::uint64_t>(nbytes_) + s + 1) * kGolden));
  }
  std::snprintf(text, sizeof(text), "%016llx%016llx", static_cast<unsigned long long>(halves[0]),
                static_cast<unsigned long long>(halves[1]));
  return text;
}

std::vector<std::string> digest_ranges(
    const std::string& path, const std::vector<std::pair<std::int64_t, std::int64_t>>& ranges,
    int threads) {
  // Threads share out pieces, not ranges: one range may be most of the file.
  constexpr std::int64_t kPiece = 4 << 20;
  const MappedFile file(path);
  std::vector<std::unique_ptr<Digest>> digests;
  std::vector<std::pair<std::size_t, std::int64_t>> pieces;  // range, begin within it
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    digests.push_back(std::make_unique<Digest>(ranges[i].second));
    for (std::int64_t at = 0; at < ranges[i].second; at += kPiece) pieces.emplace_back(i, at);
  }
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::exception_ptr error;
  const auto work = [&] {
    try {
      const AlignedBuffer buffer(static_cast<std::size_t>(kPiece));
      for (std::size_t i; (i = next++) < pieces.size();) {
        const auto [range, begin] = pieces[i];
        const std::int64_t length = std::min(kPiece, ranges[range].second - begin);
        file.read(ranges[range].first + begin, length, buffer.data());
        digests[range]->add(begin, length, buffer.data());
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
      next = pieces.size();
    }
  };
  std::vector<std::thread> workers;
  for (int i = 1; i < threads; ++i) workers.emplace_back(work);
  work();
  for (std::thread& worker : workers) worker.join();
  if (error) std::rethrow_exception(error);
  std::vector<std::string> out;
  for (const auto& digest : digests) out.push_back(digest->finish());
  return out;
}

}  // namespace pymerge
