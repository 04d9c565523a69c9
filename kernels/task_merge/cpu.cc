// task_merge on the CPU. Reads every input once, writes the output once; masks live for one block.
#include "task_merge/task_merge.h"

#include "common/rules.h"

namespace pymerge {
namespace {

// base, keep, sum, then one array a source; each kBlock long.
template <typename Real>
struct Workspace {
  explicit Workspace(void* scratch)
      : base(static_cast<Real*>(scratch)),
        keep(reinterpret_cast<Bits<Real>*>(base + kBlock)),
        sum(base + 2 * kBlock),
        divisor(base + 3 * kBlock),
        parts(base + 4 * kBlock) {}
  Real* part(int i) const { return parts + i * kBlock; }

  Real* base;
  Bits<Real>* keep;
  Real* sum;
  Real* divisor;
  Real* parts;
};

// P_i = c_i (m_i ? D_i : 0)
template <typename Real>
void make_part(const TaskMergeArgs& args, int i, std::int64_t begin, int n,
               const Workspace<Real>& space) {
  Real* __restrict part = space.part(i);
  decode_delta(args.tensors[i], space.base, begin, n, part);
  if (args.rules[i].kind != Rule::Kind::kKeepAll) {
    rule_mask(args.rules[i], begin, n, part, space.keep);
    apply_mask(space.keep, n, part);
  }
  const Real coefficient = static_cast<Real>(args.coefficients[i]);
  for (int e = 0; e < n; ++e) part[e] *= coefficient;
}

template <typename Real>
void add_parts(int count, int n, const Workspace<Real>& space) {
  Real* __restrict sum = space.sum;
  const Real* __restrict first = space.part(0);
  for (int e = 0; e < n; ++e) sum[e] = first[e];
  for (int i = 1; i < count; ++i) {
    const Real* __restrict part = space.part(i);
    for (int e = 0; e < n; ++e) sum[e] += part[e];
  }
}

// The parts that agree with the winning sign; NaN always "agrees", so it is never lost. `Fixed` > 0
// is the number of sources known to the compiler: everything then stays in registers.
template <typename Real, int Fixed>
void elect_parts(const TaskMergeArgs& args, int n, const Workspace<Real>& space) {
  const int count = Fixed > 0 ? Fixed : args.n;
  constexpr int kMost = Fixed > 0 ? Fixed : 1;
  Real weights[kMost];
  const Real* const given = weights;
  for (int i = 0; i < Fixed; ++i) weights[i] = static_cast<Real>(args.weights[i]);
  const Real scale = static_cast<Real>(args.scale);
  const bool normalize = args.normalize;
  Real* __restrict out = space.sum;
  const Real* __restrict parts = space.parts;
  for (int e = 0; e < n; ++e) {
    Real total = parts[e];
    for (int i = 1; i < count; ++i) total += parts[i * kBlock + e];
    // Flip all signs where the negative side won: then "agrees" is "not <= 0".
    const Real side = total >= 0 ? Real{1} : Real{-1};
    Real sum = 0;
    Real divisor = 0;
    for (int i = 0; i < count; ++i) {
      const Real part = parts[i * kBlock + e];
      const bool agrees = !(part * side <= 0);
      sum += agrees ? part : Real{0};
      divisor += agrees ? (Fixed > 0 ? given[i] : static_cast<Real>(args.weights[i])) : Real{0};
    }
    const Real factor = normalize ? scale / (divisor == 0 ? Real{1} : divisor) : scale;
    out[e] = sum * factor;
  }
}

template <typename Real>
void elect(const TaskMergeArgs& args, int n, const Workspace<Real>& space) {
  switch (args.n) {
    case 1: return elect_parts<Real, 1>(args, n, space);
    case 2: return elect_parts<Real, 2>(args, n, space);
    case 3: return elect_parts<Real, 3>(args, n, space);
    case 4: return elect_parts<Real, 4>(args, n, space);
    default: return elect_parts<Real, 0>(args, n, space);
  }
}

template <typename Real>
bool fill_as(const TaskMergeArgs& args, Range range, DType out_dtype, void* out, void* scratch) {
  const Workspace<Real> space(scratch);
  bool bad = false;
  auto* at = static_cast<unsigned char*>(out);
  for_each_chunk(range, [&](std::int64_t begin, int n) {
    decode(args.base, begin, n, space.base);
    for (int i = 0; i < args.n; ++i) make_part(args, i, begin, n, space);
    args.elect ? elect(args, n, space) : add_parts(args.n, n, space);
    Real* __restrict sum = space.sum;
    const Real* __restrict base = space.base;
    for (int e = 0; e < n; ++e) sum[e] = base[e] + sum[e];
    bad |= encode(sum, n, out_dtype, at);
    at += n * item_size(out_dtype);
  });
  return bad;
}

bool fill(const TaskMergeArgs& args, Compute compute, Range range, DType out_dtype, void* out,
          void* scratch) {
  return compute == Compute::kFloat64 ? fill_as<double>(args, range, out_dtype, out, scratch)
                                      : fill_as<float>(args, range, out_dtype, out, scratch);
}

std::size_t scratch_bytes(int n) {
  return static_cast<std::size_t>(n + 4) * kBlock * sizeof(double);
}

}  // namespace

PYMERGE_EXPORT(TaskMergeKernel, task_merge) = {fill, scratch_bytes};

}  // namespace pymerge
