// What Python sees of the streaming engine.
#include "engine.h"

namespace pymerge::bindings {
namespace {

template <bool open>
void measure_key_counts(Engine& engine, std::int64_t ticket, const Tensors& tensors,
                        const Tensor* base, const std::string& compute,
                        std::vector<std::uint64_t> lows, int shift, std::int64_t buckets) {
  engine.submit(ticket,
                make_key_counts(tensors, base, compute, std::move(lows), shift, buckets, open),
                &key_counts_answer);
}

}  // namespace

void bind_engine(py::module_& module) {
  using py::arg;
  py::class_<Combine, std::shared_ptr<Combine>>(module, "Combine");
  py::class_<Engine>(module, "Engine")
      .def(py::init([](int threads, std::int64_t block, int buffers, int writers, bool direct,
                       bool stop_on_nonfinite, std::int64_t gathered, std::int64_t masks) {
             return std::make_unique<Engine>(
                 threads, WriterOptions{block, buffers, writers, direct, stop_on_nonfinite},
                 gathered, masks);
           }),
           arg("threads"), arg("block"), arg("buffers"), arg("writers"), arg("direct"),
           arg("stop_on_nonfinite"), arg("gathered") = SelectMeasure::kGathered, arg("masks") = 0)
      .def("map_file", &Engine::map_file, arg("path"), arg("in_place"),
           "A file whose parts are read ahead of the engine's work on them.")
      .def("measure_gram",
           [](Engine& self, std::int64_t ticket, const Tensors& tensors, const Tensor* base,
              const std::string& compute) {
             self.submit(ticket, make_gram(tensors, base, compute), &gram_answer);
           })
      .def("measure_gram_lines",
           [](Engine& self, std::int64_t ticket, const Tensors& tensors, const Tensor* base,
              const std::string& compute, const LinesTuple& lines) {
             self.submit(ticket, make_gram_lines(tensors, base, compute, lines),
                         &gram_lines_answer);
           })
      .def("measure_select",
           [](Engine& self, std::int64_t ticket, const Tensors& tensors, const Tensor* base,
              const std::string& compute, const std::vector<std::int64_t>& counts) {
             self.submit(ticket, make_select(tensors, base, compute, counts, self.gathered()),
                         &select_answer);
           })
      .def("measure_select_spread",
           [](Engine& self, std::int64_t ticket, const Tensors& tensors, const py::none&,
              const std::string& compute, double share) {
             self.submit(ticket, make_select_spread(tensors, compute, share, self.gathered()),
                         &select_answer);
           })
      .def("measure_select_lines",
           [](Engine& self, std::int64_t ticket, const Tensors& tensors, const Tensor* base,
              const std::string& compute, const std::vector<std::int64_t>& counts,
              const py::buffer& factors, const LinesTuple& lines) {
             self.submit(
                 ticket,
                 make_select_lines(tensors, base, compute, counts, factors, lines, self.gathered()),
                 &select_answer);
           })
      .def("measure_key_sample",
           [](Engine& self, std::int64_t ticket, const Tensors& tensors, const Tensor* base,
              const std::string& compute, std::int64_t apart) {
             self.submit(ticket, make_key_sample(tensors, base, compute, apart),
                         &key_sample_answer);
           })
      .def("measure_key_counts", &measure_key_counts<false>)
      .def("measure_key_counts_open", &measure_key_counts<true>)
      .def("measure_row_divergence",
           [](Engine& self, std::int64_t ticket, const Tensors& tensors, const Tensor& base,
              const std::string& compute, const LinesTuple& lines) {
             self.submit(ticket, make_row_divergence(tensors, base, compute, lines),
                         &row_divergence_answer);
           })
      .def("measure_masked_sum",
           [](Engine& self, std::int64_t ticket, const Tensors& tensors, const Tensor* base,
              const std::string& compute, const std::vector<py::tuple>& rules,
              const std::string& norm) {
             self.submit(ticket, make_masked_sum(tensors, base, compute, rules, norm, self.masks()),
                         &masked_sum_answer);
           })
      .def("measure_overlap",
           [](Engine& self, std::int64_t ticket, const Tensors& tensors, const Tensor* base,
              const std::string& compute, const std::vector<py::tuple>& rules) {
             self.submit(ticket, make_overlap(tensors, base, compute, rules), &overlap_answer);
           })
      .def(
          "open_shard", &Engine::open_shard, arg("temporary"), arg("final_path"), arg("segments"),
          arg("twins") = std::vector<std::pair<int, const Tensor*>>(),
          arg("kept") = std::vector<int>(),
          "Twins: [(segment, Tensor)], in order; as much of each is shared as the file system can. "
          "Kept: segments, in order, that `temporary` holds.")
      .def("fill_bytes", &Engine::fill_bytes, arg("shard"), arg("segment"), arg("data"),
           "Bytes of a contiguous buffer, held until they are in the output's blocks.")
      .def("fill_made", &Engine::fill_made, arg("shard"), arg("segment"), arg("made"), arg("dtype"),
           "Merged values: `made.read(begin, out, once)` copies bytes from `begin` on into `out`. "
           "Called "
           "by workers, `once` for each byte that is stored; otherwise to look at it again, if it "
           "is "
           "there, or else to be given zeros.")
      .def("fill_copy", &Engine::fill_copy, arg("shard"), arg("segment"), arg("tensor"))
      .def("fill_agreed", &Engine::fill_agreed, arg("shard"), arg("segment"), arg("tensors"),
           arg("name"))
      .def("combine_weighted_sum",
           [](Engine&, const Tensors& tensors, const py::none&, const std::string& compute,
              const std::string& out_dtype, std::vector<double> coefficients) {
             return make_weighted_sum(tensors, compute, out_dtype, std::move(coefficients));
           })
      .def("combine_weighted_sum_lines",
           [](Engine&, const Tensors& tensors, const Tensor* base, const std::string& compute,
              const std::string& out_dtype, const py::buffer& coefficients,
              const LinesTuple& lines) {
             return make_weighted_sum_lines(tensors, base, compute, out_dtype, coefficients, lines);
           })
      .def("combine_task_merge",
           [](Engine& self, const Tensors& tensors, const Tensor& base, const std::string& compute,
              const std::string& out_dtype, const std::vector<py::tuple>& rules,
              std::vector<double> coefficients, const std::string& consensus,
              std::vector<double> weights, bool normalize, double scale, std::vector<double> votes,
              std::vector<double> alone, bool pick) {
             return make_task_merge(tensors, base, compute, out_dtype, rules,
                                    std::move(coefficients), consensus, std::move(weights),
                                    normalize, scale, std::move(votes), std::move(alone), pick,
                                    self.masks());
           })
      .def("combine_near_swap",
           [](Engine&, const Tensors& tensors, const Tensor& base, const std::string& compute,
              const std::string& out_dtype,
              double t) { return make_near_swap(tensors, base, compute, out_dtype, t); })
      .def("combine_fusion",
           [](Engine&, const Tensors& tensors, const Tensor& base, const std::string& compute,
              const std::string& out_dtype, const py::buffer& factors, const LinesTuple& lines,
              double threshold) {
             return make_fusion(tensors, base, compute, out_dtype, factors, lines, threshold);
           })
      .def("fill_combine", &Engine::fill_combine, arg("shard"), arg("segment"), arg("combine"))
      .def("fill_packed", &Engine::fill_packed, arg("shard"), arg("segment"), arg("tensor"),
           arg("format"))
      .def("wait", &Engine::wait, arg("seconds"))
      .def("locate_nonfinite", &Engine::locate_nonfinite, arg("shard"), arg("segment"))
      .def("take_nonfinite", &Engine::take_nonfinite)
      .def("take_written", &Engine::take_written)
      .def("sync", &Engine::sync)
      .def("status", &Engine::status)
      .def("stop", &Engine::stop)
      .def("close", &Engine::close);
}

}  // namespace pymerge::bindings
