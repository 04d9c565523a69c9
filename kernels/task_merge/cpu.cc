// task_merge on the CPU. Reads every input once, writes the output once; masks live for one block.
#include "task_merge/task_merge.h"

#include "common/rules.h"

namespace pymerge {
namespace {

// base, keep, sum, side, divisor, then one array a source; each kBlock long.
template <typename Real>
struct Workspace {
  explicit Workspace(void* scratch)
      : base(static_cast<Real*>(scratch)),
        keep(reinterpret_cast<Bits<Real>*>(base + kBlock)),
        sum(base + 2 * kBlock),
        side(base + 3 * kBlock),
        divisor(base + 4 * kBlock),
        parts(base + 5 * kBlock) {}
  Real* part(int i) const { return parts + i * kBlock; }

  Real* base;
  Bits<Real>* keep;
  Real* sum;
  Real* side;
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

// S: the parts that agree with the winning sign, times the factor; NaN always "agrees", so it is
// never lost. A pass of its own per source: the arrays are in L1, and every loop vectorises at every
// level (one loop over all sources is not faster, measured at v3 and v4 with two and three).
template <typename Real>
void elect_parts(const TaskMergeArgs& args, int n, const Workspace<Real>& space) {
  Real* __restrict sum = space.sum;
  Real* __restrict side = space.side;
  Real* __restrict divisor = space.divisor;
  add_parts(args.n, n, space);
  for (int e = 0; e < n; ++e) {
    // Flips all signs where the negative side won: then "agrees" is "not <= 0".
    side[e] = sum[e] >= 0 ? Real{1} : Real{-1};
    sum[e] = 0;
    divisor[e] = 0;
  }
  for (int i = 0; i < args.n; ++i) {
    const Real* __restrict part = space.part(i);
    const Real weight = static_cast<Real>(args.weights[i]);
    for (int e = 0; e < n; ++e) {
      const bool agrees = !(part[e] * side[e] <= 0);
      sum[e] += agrees ? part[e] : Real{0};
      divisor[e] += agrees ? weight : Real{0};
    }
  }
  const Real scale = static_cast<Real>(args.scale);
  if (args.normalize) {
    for (int e = 0; e < n; ++e) sum[e] *= scale / (divisor[e] == 0 ? Real{1} : divisor[e]);
  } else {
    for (int e = 0; e < n; ++e) sum[e] *= scale;
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
    args.elect ? elect_parts(args, n, space) : add_parts(args.n, n, space);
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
  return static_cast<std::size_t>(n + 5) * kBlock * sizeof(double);
}

}  // namespace

PYMERGE_EXPORT(TaskMergeKernel, task_merge) = {fill, scratch_bytes};

}  // namespace pymerge
