// Instruction-set levels: which are compiled in, which this machine has, which one is used.
// Nothing here (and nothing that runs before it) is compiled with raised flags.
#pragma once

#include <string>
#include <vector>

namespace pymerge {

enum class IsaLevel { kGeneric, kV2, kV3, kV4 };

struct IsaStatus {
  IsaLevel level;
  const char* name;  // "generic", "v2", "v3", "v4" (x86-64 psABI levels)
  bool supported;    // by this machine
};

// The compiled-in levels, lowest first.
std::vector<IsaStatus> isa_levels();

// The level in use: the best supported one, or what PYMERGE_ISA or force_isa() says.
// Throws Error(kBackend) if PYMERGE_ISA names a level that does not exist or cannot run here.
IsaLevel active_isa();
void force_isa(const std::string& name);
const char* isa_name(IsaLevel level);

}  // namespace pymerge
