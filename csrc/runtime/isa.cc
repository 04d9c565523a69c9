#include "runtime/isa.h"

#include <atomic>
#include <cstdlib>

#include "core/error.h"

#define PYMERGE_TEXT_(name) #name
#define PYMERGE_TEXT(name) PYMERGE_TEXT_(name)

namespace pymerge {
namespace {

#if defined(__x86_64__)
// Single features, not level names: clang does not know __builtin_cpu_supports("x86-64-v3").
bool has_v2() {
  return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("ssse3") &&
         __builtin_cpu_supports("popcnt");
}
bool has_v3() {
  // v3 implies F16C, MOVBE and LZCNT; every processor with AVX2, FMA and BMI2 has them.
  return has_v2() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
bool has_v4() {
#if defined(PYMERGE_EMULATED_V4)
  return has_v3();
#else
  return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
#endif
}
#endif

IsaLevel find_supported(const std::string& name) {
  std::string known;
  for (const IsaStatus& status : isa_levels()) {
    if (name == status.name) {
      if (status.supported) return status.level;
      throw Error(ErrorCode::kBackend, "PYMERGE_ISA=" + name +
                                           ": this processor does not have that instruction-set "
                                           "level; unset PYMERGE_ISA to use the best one it has");
    }
    known += std::string(known.empty() ? "" : ", ") + status.name;
  }
  throw Error(ErrorCode::kBackend, "PYMERGE_ISA=" + name + ": not one of " + known);
}

IsaLevel choose() {
  const char* forced = std::getenv("PYMERGE_ISA");
  if (forced != nullptr && *forced != '\0') return find_supported(forced);
  IsaLevel best = IsaLevel::kGeneric;
  for (const IsaStatus& status : isa_levels()) {
    if (status.supported) best = status.level;
  }
  return best;
}

std::atomic<int> active{-1};

}  // namespace

std::vector<IsaStatus> isa_levels() {
  std::vector<IsaStatus> levels = {
      {IsaLevel::kGeneric, "generic", true},
#if defined(__x86_64__)
      {IsaLevel::kV2, "v2", has_v2()},
      {IsaLevel::kV3, "v3", has_v3()},
      {IsaLevel::kV4, "v4", has_v4()},
#endif
  };
#if defined(PYMERGE_ONLY_LEVEL)
  constexpr const char* kOnly = PYMERGE_TEXT(PYMERGE_ONLY_LEVEL);
  std::erase_if(levels, [](const IsaStatus& status) { return status.name != std::string(kOnly); });
#endif
  return levels;
}

IsaLevel active_isa() {
  if (active < 0) active = static_cast<int>(choose());
  return static_cast<IsaLevel>(active.load());
}

void force_isa(const std::string& name) { active = static_cast<int>(find_supported(name)); }

const char* isa_name(IsaLevel level) {
  constexpr const char* kNames[] = {"generic", "v2", "v3", "v4"};
  return kNames[static_cast<int>(level)];
}

}  // namespace pymerge
