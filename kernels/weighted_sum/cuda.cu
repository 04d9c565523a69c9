// weighted_sum: Y = sum_i c_i X_i, or B + sum_i c_i D_i with coefficients a line. Reads every input
// once, writes the output once.
#include "common/cuda/lines.cuh"
#include "common/cuda/pointwise.cuh"
#include "weighted_sum/cuda.h"

namespace pymerge::cuda {
namespace {

template <typename Format, int models>
struct Sum {
  using Real = typename Format::Real;

  struct Params {
    Deal deal;
    Output out;
    int n;
    Table<Source> tensors;
    Table<Real> coefficients;
  };

  template <int n>
  struct Inputs : Loaded<Format, models, n> {
    __device__ __forceinline__ void load(const Params& p, std::int64_t at) {
      Loaded<Format, models, n>::load(p.tensors, at);
    }
  };

  template <int n>
  static __device__ __forceinline__ void combine(const Params& p, const Inputs<n>& inputs,
                                                 std::int64_t at, Real (&sum)[n]) {
    const int count = models > 0 ? models : p.n;
#pragma unroll(models > 0 ? models : kIsMixed<Format> ? 1 : 4)
    for (int model = 0; model < count; ++model) {
      Real values[n];
      inputs.get(p.tensors, model, at, values);
      const Real coefficient = p.coefficients[model];
#pragma unroll
      for (int i = 0; i < n; ++i) {
        const Real part = coefficient * values[i];
        sum[i] = model == 0 ? part : sum[i] + part;
      }
    }
  }
};

template <typename Format>
struct LineSum {
  using Real = typename Format::Real;

  struct Params {
    Deal deal;
    Output out;
    int n;
    bool has_base;
    Source base;
    Table<Source> tensors;
    const Real* coefficients;
    Lines lines;
  };

  template <int n>
  struct Inputs {
    typename Format::template Raw<n> base;
    __device__ __forceinline__ void load(const Params& p, std::int64_t at) {
      if (p.has_base) base = Format::template load<n>(p.base, at);
    }
  };

  template <int n>
  static __device__ __forceinline__ void combine(const Params& p, const Inputs<n>& inputs,
                                                 std::int64_t at, Real (&sum)[n]) {
    Real origin[n];
    if (p.has_base) Format::template decode<n>(inputs.base, origin);
    std::int64_t lines[n];
    for_lines<n>(p.lines, at, [&](int i, std::int64_t line) { lines[i] = line; });
#pragma unroll(kIsMixed<Format> ? 1 : 4)
    for (int model = 0; model < p.n; ++model) {
      Real values[n];
      Format::template decode<n>(Format::template load<n>(p.tensors[model], at), values);
      const Real* const coefficients = p.coefficients + model * p.lines.count;
#pragma unroll
      for (int i = 0; i < n; ++i) {
        const Real delta = p.has_base ? values[i] - origin[i] : values[i];
        const Real part = coefficients[lines[i]] * delta;
        sum[i] = model == 0 ? part : sum[i] + part;
      }
    }
    if (!p.has_base) return;
#pragma unroll
    for (int i = 0; i < n; ++i) sum[i] = origin[i] + sum[i];
  }
};

}  // namespace

void weighted_sum(const Stream& stream, const Inputs& inputs,
                  const std::vector<double>& coefficients, const Output& out) {
  const Deal dealt = deal(inputs, out);
  with_models<2, 3>(inputs, [&](auto format, auto models) {
    using Op = Sum<decltype(format), decltype(models)::value>;
    const HostTable<Source> tensors(stream, sources_of(inputs));
    const HostTable<typename Op::Real> numbers(stream, to_reals<typename Op::Real>(coefficients));
    launch(stream, combine<Op>, {dealt.blocks}, kThreads,
           typename Op::Params{dealt, out, inputs.size(), tensors.get(), numbers.get()});
  });
}

void weighted_sum_lines(const Stream& stream, const Inputs& inputs,
                        const std::vector<double>& coefficients, const Lines& lines,
                        const Output& out) {
  const Deal dealt = deal(inputs, out);
  with_format<true>(inputs, [&](auto format) {
    using Op = LineSum<decltype(format)>;
    using Real = typename Op::Real;
    const HostTable<Source> tensors(stream, sources_of(inputs));
    const DeviceArray<Real> numbers(stream, to_reals<Real>(coefficients));
    launch(stream, combine<Op>, {dealt.blocks}, kThreads,
           typename Op::Params{dealt, out, inputs.size(), inputs.has_base, source_of(inputs.base),
                               tensors.get(), numbers.data(), lines});
  });
}

}  // namespace pymerge::cuda
