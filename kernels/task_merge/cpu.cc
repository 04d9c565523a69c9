// task_merge on the CPU. Reads every input once, writes the output once; masks live for one block.
#include "common/rules.h"
#include "common/spread.h"
#include "task_merge/fused.h"
#include "task_merge/task_merge.h"

namespace pymerge {
namespace {

// base, value, keep, sum, side, divisor, spread, then one array a source; each kBlock long.
template <typename Real>
struct Workspace {
  explicit Workspace(void* scratch)
      : base(static_cast<Real*>(scratch)),
        value(base + kBlock),
        keep(reinterpret_cast<Bits<Real>*>(base + 2 * kBlock)),
        sum(base + 3 * kBlock),
        side(base + 4 * kBlock),
        divisor(base + 5 * kBlock),
        spread(base + 6 * kBlock),
        parts(base + 7 * kBlock) {}
  Real* part(int i) const { return parts + i * kBlock; }

  Real* base;
  Real* value;
  Bits<Real>* keep;
  Real* sum;
  Real* side;
  Real* divisor;
  Real* spread;
  Real* parts;
};

// Calls store(e, c (m_i ? D_i[e] : 0)) for a run: one loop over the decoded values, which the rule
// decides.
template <typename Real, typename Store>
void for_each_part(const TaskMergeArgs& args, int i, Real coefficient, std::int64_t begin, int n,
                   const Workspace<Real>& space, const Store& store) {
  const Rule& rule = args.rules[i];
  Real* __restrict value = space.value;
  const Real* __restrict base = space.base;
  decode(args.tensors[i], begin, n, value);
  if (rule.kind == Rule::Kind::kKeepAll) {
    for (int e = 0; e < n; ++e) store(e, coefficient * (value[e] - base[e]));
  } else if (rule.kind == Rule::Kind::kBand) {
    for_each_band<Real>(rule, begin, n, [&](int from, int to, Bits<Real> low, Bits<Real> high) {
      for (int e = from; e < to; ++e) {
        const Real delta = value[e] - base[e];
        store(e, coefficient * real_of<Real>(bits_of(delta) & band_word(delta, low, high)));
      }
    });
  } else {
    const Bits<Real>* __restrict keep = space.keep;
    mask_of(masked_source(args, i), begin, n, value, space.spread, space.keep);
    for (int e = 0; e < n; ++e) {
      store(e, coefficient * real_of<Real>(bits_of(value[e] - base[e]) & keep[e]));
    }
  }
}

// S = P_1 + ... + P_n
template <typename Real>
void add_parts(const TaskMergeArgs& args, std::int64_t begin, int n, const Workspace<Real>& space) {
  Real* __restrict sum = space.sum;
  for (int i = 0; i < args.n; ++i) {
    const bool first = i == 0;
    for_each_part(args, i, static_cast<Real>(args.coefficients[i]), begin, n, space,
                  [=](int e, Real part) { sum[e] = first ? part : sum[e] + part; });
  }
}

// The same sum, every part kept for the election.
template <typename Real>
void make_parts(const TaskMergeArgs& args, std::int64_t begin, int n,
                const Workspace<Real>& space) {
  Real* __restrict sum = space.sum;
  for (int i = 0; i < args.n; ++i) {
    Real* __restrict parts = space.part(i);
    const bool first = i == 0;
    for_each_part(args, i, static_cast<Real>(args.coefficients[i]), begin, n, space,
                  [=](int e, Real part) {
                    parts[e] = part;
                    sum[e] = first ? part : sum[e] + part;
                  });
  }
}

// Factors every sum with the winning side's scale / divisor.
template <typename Real>
Real factor_of(Real divisor, Real scale, bool normalize) {
  return normalize ? scale / (divisor == 0 ? Real{1} : divisor) : scale;
}

// S from T in space.sum: the parts that agree with the winning sign, times the factor. The sides
// are flipped where the negative one won, so that "agrees" is "not <= 0"; NaN always does, and so
// is never lost. With the number of sources known, everything stays in registers.
template <typename Real, int kSources>
void elect_few(const TaskMergeArgs& args, int n, const Workspace<Real>& space) {
  const Real scale = static_cast<Real>(args.scale);
  const bool normalize = args.normalize;
  Real weights[kSources];
  for (int i = 0; i < kSources; ++i) {
    weights[i] = normalize ? static_cast<Real>(args.weights[i]) : Real{0};
  }
  Real* __restrict sum = space.sum;
  const Real* __restrict parts = space.parts;
  for (int e = 0; e < n; ++e) {
    const Real side = sum[e] >= 0 ? Real{1} : Real{-1};
    Real merged = 0;
    Real divisor = 0;
    for (int i = 0; i < kSources; ++i) {
      const Real part = parts[i * kBlock + e];
      const bool agrees = !(part * side <= 0);
      merged += agrees ? part : Real{0};
      divisor += agrees ? weights[i] : Real{0};
    }
    sum[e] = merged * factor_of(divisor, scale, normalize);
  }
}

// The same for any number of sources, one pass over the L1-resident arrays each.
template <typename Real>
void elect_many(const TaskMergeArgs& args, int n, const Workspace<Real>& space) {
  const Real scale = static_cast<Real>(args.scale);
  const bool normalize = args.normalize;
  Real* __restrict sum = space.sum;
  Real* __restrict side = space.side;
  Real* __restrict divisor = space.divisor;
  for (int e = 0; e < n; ++e) {
    side[e] = sum[e] >= 0 ? Real{1} : Real{-1};
    sum[e] = 0;
    divisor[e] = 0;
  }
  for (int i = 0; i < args.n; ++i) {
    const Real* __restrict part = space.part(i);
    const Real weight = normalize ? static_cast<Real>(args.weights[i]) : Real{0};
    for (int e = 0; e < n; ++e) {
      const bool agrees = !(part[e] * side[e] <= 0);
      sum[e] += agrees ? part[e] : Real{0};
      divisor[e] += agrees ? weight : Real{0};
    }
  }
  for (int e = 0; e < n; ++e) sum[e] *= factor_of(divisor[e], scale, normalize);
}

template <typename Real>
void elect(const TaskMergeArgs& args, int n, const Workspace<Real>& space) {
  switch (args.n) {
    case 1:
      return elect_few<Real, 1>(args, n, space);
    case 2:
      return elect_few<Real, 2>(args, n, space);
    case 3:
      return elect_few<Real, 3>(args, n, space);
    default:
      return elect_many(args, n, space);
  }
}

template <typename Real>
Real sign_of(Real value) {
  return value > 0 ? Real{1} : value < 0 ? Real{-1} : Real{0};  // NaN votes for neither side
}

// S by any consensus, from K_i in the parts: the spec's steps, one pass over L1-resident arrays
// each.
template <typename Real>
void elect_by(const TaskMergeArgs& args, int n, const Workspace<Real>& space) {
  Real* __restrict sum = space.sum;
  Real* __restrict side = space.side;
  Real* __restrict divisor = space.divisor;
  Real* __restrict single = space.value;
  Bits<Real>* __restrict taking = space.keep;
  const bool overlap = args.consensus == Consensus::kOverlap;
  const bool count = args.consensus == Consensus::kCount;
  const auto vote_of = [&](int i) {
    return static_cast<Real>(args.votes == nullptr ? args.coefficients[i] : args.votes[i]);
  };
  for (int i = 0; i < args.n && !overlap; ++i) {
    const Real* __restrict kept = space.part(i);
    const Real vote = vote_of(i);
    for (int e = 0; e < n; ++e) {
      const Real ballot = count ? sign_of(vote * kept[e]) : vote * kept[e];
      sum[e] = i == 0 ? ballot : sum[e] + ballot;
    }
  }
  for (int e = 0; e < n; ++e) {
    side[e] = sum[e] >= 0 ? Real{1} : Real{-1};
    sum[e] = divisor[e] = single[e] = 0;
    taking[e] = 0;
  }
  for (int i = 0; i < args.n; ++i) {
    const Real* __restrict kept = space.part(i);
    const Real vote = vote_of(i);
    const Real coefficient = static_cast<Real>(args.coefficients[i]);
    const Real weight = args.normalize ? static_cast<Real>(args.weights[i]) : Real{0};
    const Real alone = args.alone != nullptr ? static_cast<Real>(args.alone[i]) : Real{0};
    for (int e = 0; e < n; ++e) {
      const bool agrees = overlap ? !(kept[e] == 0) : !(vote * kept[e] * side[e] <= 0);
      if (args.pick) {
        const Real part = coefficient * kept[e];
        if (agrees && magnitude_key(part) > magnitude_key(sum[e])) sum[e] = Real{0} + part;
        continue;
      }
      sum[e] += agrees ? coefficient * kept[e] : Real{0};
      divisor[e] += agrees ? weight : Real{0};
      single[e] += agrees ? alone : Real{0};
      taking[e] += agrees ? 1 : 0;
    }
  }
  const Real scale = static_cast<Real>(args.scale);
  for (int e = 0; e < n; ++e) {
    const Real factor = args.pick ? scale : factor_of(divisor[e], scale, args.normalize);
    sum[e] *= !args.pick && args.alone != nullptr && taking[e] == 1 ? single[e] : factor;
  }
}

// Elements [begin, begin + n) of base + S into space.sum; the run lies in one canonical block.
template <typename Real>
void merge_run(const TaskMergeArgs& args, std::int64_t begin, int n, const Workspace<Real>& space) {
  if (any_spread(args.rules, args.n)) {
    spread_of(args.tensors, args.n, begin, n, space.base, space.value, space.spread);
  }
  decode(args.base, begin, n, space.base);
  if (args.consensus == Consensus::kNone) {
    add_parts(args, begin, n, space);
  } else if (args.consensus == Consensus::kSum && args.votes == nullptr && args.alone == nullptr &&
             !args.pick) {
    make_parts(args, begin, n, space);
    elect(args, n, space);
  } else {
    for (int i = 0; i < args.n; ++i) {
      Real* __restrict parts = space.part(i);
      for_each_part(args, i, Real{1}, begin, n, space, [=](int e, Real kept) { parts[e] = kept; });
    }
    elect_by(args, n, space);
  }
  Real* __restrict sum = space.sum;
  const Real* __restrict base = space.base;
  for (int e = 0; e < n; ++e) sum[e] = base[e] + sum[e];
}

template <typename Real>
bool fill_as(const TaskMergeArgs& args, Range range, DType out_dtype, void* out, void* scratch) {
  const Workspace<Real> space(scratch);
  FusedMerge<VectorFor<Real>> fused(args);
  bool bad = false;
  auto* at = static_cast<unsigned char*>(out);
  const auto store = [&](int n) {
    bad |= encode(space.sum, n, out_dtype, at);
    at += n * item_size(out_dtype);
  };
  for_each_chunk(range, [&](std::int64_t begin, int n) {
    const int done = fused.run(begin, n, space.sum);
    if (done > 0) store(done);
    if (done == n) return;
    merge_run(args, begin + done, n - done, space);
    store(n - done);
  });
  return bad;
}

bool fill(const TaskMergeArgs& args, Compute compute, Range range, DType out_dtype, void* out,
          void* scratch) {
  return compute == Compute::kFloat64 ? fill_as<double>(args, range, out_dtype, out, scratch)
                                      : fill_as<float>(args, range, out_dtype, out, scratch);
}

std::size_t scratch_bytes(int n) {
  return static_cast<std::size_t>(n + 7) * kBlock * sizeof(double);
}

}  // namespace

PYMERGE_EXPORT(TaskMergeKernel, task_merge) = {fill, scratch_bytes};

}  // namespace pymerge
