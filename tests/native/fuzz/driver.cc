// Drives a fuzz target where there is no libFuzzer: mutates a corpus, the same way for the same
// seed, and keeps what reaches something new (gcc's -fsanitize-coverage=trace-pc). Usage:
//   fuzz SEED ROUNDS SECONDS CRASH FILE...
// ends after ROUNDS inputs or SECONDS, whichever comes first; an input that crashes is in CRASH.
#include <signal.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" void __sanitizer_set_death_callback(void (*callback)());

namespace {

// One bit for each edge that was taken about so often.
std::array<std::uint8_t, 1 << 13> known{};
std::array<std::uint8_t, 1 << 13> counts{};
std::uintptr_t before = 0;

std::string input;
std::string crash;

// Only what a signal handler may do is wanted here, but the process is lost anyway.
void save_input() { std::ofstream(crash, std::ios::binary) << input; }

void on_abort(int) {
  save_input();
  std::_Exit(99);
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {  // splitmix64
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }
  std::size_t below(std::size_t end) { return end == 0 ? 0 : next() % end; }

 private:
  std::uint64_t state_;
};

// What headers are made of.
const std::vector<std::string> kWords = {"{",
                                         "}",
                                         "[",
                                         "]",
                                         ",",
                                         ":",
                                         "\"",
                                         "\\",
                                         "0",
                                         "1",
                                         "9",
                                         "-",
                                         ".",
                                         "e",
                                         " ",
                                         "\n",
                                         "null",
                                         "true",
                                         "\"shape\":",
                                         "\"dtype\":",
                                         "\"data_offsets\":",
                                         "\"__metadata__\":",
                                         "\"F32\"",
                                         "\"F4\"",
                                         "\"BF16\"",
                                         "\"U8\"",
                                         "[0,0]",
                                         "[]",
                                         "{}",
                                         "\\u0041",
                                         "\\ud83d\\ude00",
                                         "\\ud800",
                                         "\\u",
                                         "\\\"",
                                         "\xC2\xA9",
                                         "\xF0\x9F\x98\x80",
                                         "\xFF",
                                         "\xED\xA0\x80",
                                         "9223372036854775807",
                                         "9223372036854775808",
                                         "4294967296",
                                         "18446744073709551615",
                                         "4611686018427387904"};

void mutate(std::string& text, const std::vector<std::string>& corpus, Random& random) {
  const std::size_t at = random.below(text.size() + 1);
  const std::size_t length = random.below(std::min<std::size_t>(text.size() - at, 40) + 1);
  switch (random.below(7)) {
    case 0:
      if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << random.below(8)));
      break;
    case 1:
      if (at < text.size()) text[at] = static_cast<char>(random.next());
      break;
    case 2:
      text.erase(at, length);
      break;
    case 3:
      text.insert(random.below(text.size() + 1), text.substr(at, length));
      break;
    case 4:
      text.insert(at, kWords[random.below(kWords.size())]);
      break;
    case 5:
      text.replace(at, length, kWords[random.below(kWords.size())]);
      break;
    default: {
      const std::string& other = corpus[random.below(corpus.size())];
      text = text.substr(0, at) + other.substr(random.below(other.size() + 1));
    }
  }
  if (text.size() > 4096) text.resize(4096);
}

// Whether the last input took an edge that none had taken, or much more often.
bool is_new() {
  bool found = false;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] == 0) continue;
    const int order = 31 - __builtin_clz(counts[i]);
    const auto bit = static_cast<std::uint8_t>(1 << order);
    found = found || (known[i] & bit) == 0;
    known[i] |= bit;
    counts[i] = 0;
  }
  return found;
}

bool run() {
  before = 0;
  LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
  return is_new();
}

}  // namespace

extern "C" void __sanitizer_cov_trace_pc() {
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  std::uint8_t& count = counts[(here ^ before) & (counts.size() - 1)];
  if (count < 255) ++count;
  before = here >> 1;
}

int main(int argc, char** argv) {
  if (argc < 6) {
    std::fputs("usage: fuzz SEED ROUNDS SECONDS CRASH FILE...\n", stderr);
    return 2;
  }
  Random random(std::strtoull(argv[1], nullptr, 10));
  const auto rounds = std::strtoull(argv[2], nullptr, 10);
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::seconds(std::atoi(argv[3]));
  crash = argv[4];
  signal(SIGABRT, on_abort);
  __sanitizer_set_death_callback(save_input);
  std::vector<std::string> corpus;
  for (int i = 5; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    input = corpus.back();
    run();
  }
  const std::size_t seeds = corpus.size();
  std::uint64_t round = 0;
  for (; round < rounds && (round % 1024 != 0 || Clock::now() < end); ++round) {
    input = corpus[random.below(corpus.size())];
    for (std::size_t i = random.below(4) + 1; i > 0; --i) mutate(input, corpus, random);
    if (run()) corpus.push_back(input);
  }
  std::printf("%llu inputs, %zu of them kept beside %zu\n", static_cast<unsigned long long>(round),
              corpus.size() - seeds, seeds);
  return 0;
}
