// The streaming engine: measures in flight, combines that fill output blocks, one pool for both.
// Python decides in between; it is told which measures are done and is never waited for by a tile.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "buffers.h"
#include "core/error.h"
#include "io/shard_writer.h"
#include "jobs.h"

namespace pymerge::bindings {
namespace {

using Tensors = std::vector<const Tensor*>;

class Engine {
 public:
  // `gathered`: bytes of keys that a select may hold per entry; `masks`: bytes of masks that may be
  // kept between measures and combines.
  Engine(int threads, const WriterOptions& options, std::int64_t gathered, std::int64_t masks)
      : gathered_(gathered),
        masks_(masks),
        writer_(options),
        pool_(threads, {&writer_, &measures_}) {
    writer_.attach(&pool_);
    measures_.attach(&pool_);
  }
  ~Engine() { stop(); }

  std::shared_ptr<MappedFile> map_file(const std::string& path, bool in_place) {
    return std::make_shared<MappedFile>(path, in_place, read_ahead_);
  }

  // Measures: `ticket` comes back from wait() with the answer.
  template <typename Job>
  void submit(std::int64_t ticket, std::shared_ptr<Job> job, py::object (*answer)(const Job&)) {
    measures_.submit(job, [this, ticket, job, answer] {
      read_ += job->bytes_read();
      {
        const std::lock_guard lock(mutex_);
        finished_.emplace_back(ticket, [job, answer] { return answer(*job); });
      }
      changed_.notify_all();
    });
  }

  std::int64_t gathered() const { return gathered_; }
  MaskStore* masks() { return &masks_; }

  int open_shard(const std::string& temporary, const std::string& final_path,
                 const std::vector<std::pair<std::int64_t, std::int64_t>>& segments,
                 const std::vector<std::pair<int, const Tensor*>>& twins,
                 const std::vector<int>& kept) {
    std::vector<Segment> made;
    for (const auto& [offset, nbytes] : segments) made.push_back({offset, nbytes});
    std::vector<Twin> shared;
    for (const auto& [segment, tensor] : twins) {
      const Segment& where = made.at(static_cast<std::size_t>(segment));
      shared.push_back({where, tensor->view.file, tensor->view.offset()});
    }
    return writer_.open_shard(temporary, final_path, std::move(made), shared, kept);
  }

  // With a dtype the values that are not finite are counted, as a combine's are.
  void fill_bytes(int shard, int segment, const py::buffer& bytes,
                  const std::optional<std::string>& dtype) {
    const auto held = buffers_.hold(bytes);
    std::optional<DType> kind;
    if (dtype) kind = to_dtype(*dtype);
    if (kind) merged_[{shard, segment}] = {held, *kind};
    writer_.set_filler(
        shard, segment,
        [held, kind](std::int64_t begin, std::int64_t length, std::byte* out, Scratch&) {
          std::memcpy(out, bytes_of(*held) + begin, static_cast<std::size_t>(length));
          return kind ? count_nonfinite(out, *kind, length / item_size(*kind)) : 0;
        });
  }

  void fill_copy(int shard, int segment, const Tensor& tensor) {
    read_ += writer_.set_copy(shard, segment, tensor.view.file, tensor.view.offset());
  }

  // Bytes as they are; every peer must hold the same ones.
  void fill_agreed(int shard, int segment, const Tensors& tensors, const std::string& name) {
    std::vector<TensorView> views;
    for (const Tensor* tensor : tensors) views.push_back(tensor->view);
    writer_.set_filler(
        shard, segment,
        [this, views, name](std::int64_t begin, std::int64_t length, std::byte* out,
                            Scratch& scratch) {
          const auto size = static_cast<std::size_t>(length);
          views[0].file->read(views[0].offset() + begin, length, out);
          for (std::size_t i = 1; i < views.size(); ++i) {
            const TensorView& view = views[i];
            std::byte* const theirs = scratch.take_copies(size);
            view.file->read(view.offset() + begin, length, theirs);
            if (std::memcmp(out, theirs, size) == 0) continue;
            const auto at = begin + (std::mismatch(out, out + size, theirs).first - out);
            throw Error(ErrorCode::kDType,
                        "element " + std::to_string(at / item(view)) + " differs between " +
                            views[0].file->path() + " and " + view.file->path() +
                            ", and integers cannot be merged; make the copies agree or leave the "
                            "tensor out of one model",
                        "", name);
          }
          read_ += length * static_cast<std::int64_t>(views.size());
          return std::int64_t{0};
        });
  }

  void fill_combine(int shard, int segment, std::shared_ptr<Combine> combine) {
    combines_[{shard, segment}] = combine;
    writer_.set_filler(shard, segment,
                       [this, combine = std::move(combine)](std::int64_t begin, std::int64_t length,
                                                            std::byte* out, Scratch& scratch) {
                         const std::int64_t size = item_size(combine->out_dtype());
                         const Range range{begin / size, length / size};
                         const std::int64_t bad = combine->fill(range, out, scratch);
                         read_ += combine->bytes(range);
                         return bad;
                       });
  }

  // Flat index of the first non-finite value of a segment: of a combine, runs it again from the
  // start.
  std::int64_t locate_nonfinite(int shard, int segment) {
    if (const auto found = merged_.find({shard, segment}); found != merged_.end()) {
      const auto& [weak, dtype] = found->second;
      const auto held = weak.lock();
      if (held == nullptr) return -1;
      return find_nonfinite(bytes_of(*held), dtype, held->size * held->itemsize / item_size(dtype));
    }
    const std::shared_ptr<Combine> combine = combines_.at({shard, segment}).lock();
    if (combine == nullptr) return -1;
    const py::gil_scoped_release release;
    Scratch scratch;
    const AlignedBuffer tile(static_cast<std::size_t>(kTile) * sizeof(double));
    for (std::int64_t begin = 0; begin < combine->count(); begin += kTile) {
      const Range range{begin, std::min(kTile, combine->count() - begin)};
      if (combine->fill(range, tile.data(), scratch) > 0) {
        return begin + find_nonfinite(tile.data(), combine->out_dtype(), range.count);
      }
    }
    return -1;
  }

  // Waits until a measure is done, a shard was finished, a non-finite value was stored, or
  // `seconds` passed; returns [(ticket, answer)]. Raises what a worker raised.
  py::list wait(double seconds) {
    std::vector<std::pair<std::int64_t, std::function<py::object()>>> taken;
    {
      const py::gil_scoped_release release;
      using Clock = std::chrono::steady_clock;
      const auto until = Clock::now() + std::chrono::duration<double>(seconds);
      std::unique_lock lock(mutex_);
      // Errors and finished shards do not signal: look for them every few milliseconds.
      while (finished_.empty() && !pool_.error() && writer_.shards_finished() == seen_shards_ &&
             !writer_.halted() && Clock::now() < until) {
        changed_.wait_for(lock, std::chrono::milliseconds(3));
      }
      taken = std::exchange(finished_, {});
      seen_shards_ = writer_.shards_finished();
    }
    buffers_.release();
    if (const auto error = pool_.error()) std::rethrow_exception(error);
    py::list out;
    for (const auto& [ticket, answer] : taken) out.append(py::make_tuple(ticket, answer()));
    return out;
  }

  void stop() {
    {
      const py::gil_scoped_release release;
      read_ahead_->stop();
      pool_.stop();
      writer_.stop();
    }
    buffers_.release();
  }

  void sync() {
    const py::gil_scoped_release release;
    writer_.sync();
  }

  void close() { writer_.close(); }

  py::list take_written() {
    py::list out;
    for (const auto& done : writer_.take_written()) {
      out.append(py::make_tuple(done.shard, done.segment, done.digest));
    }
    return out;
  }

  py::list take_nonfinite() {
    py::list out;
    for (const auto& found : writer_.take_nonfinite()) {
      out.append(py::make_tuple(found.shard, found.segment, found.count));
    }
    return out;
  }

  py::dict status() const {
    py::dict out;
    out["read"] = read_.load();
    // In this order: when all shards are finished, all bytes have been counted.
    out["shards_finished"] = writer_.shards_finished();
    out["written"] = writer_.bytes_written();
    out["shared"] = writer_.bytes_shared();
    out["kept"] = writer_.bytes_kept();
    out["direct"] = writer_.direct();
    out["fill_seconds"] = pool_.busy_seconds(0);
    out["measure_seconds"] = pool_.busy_seconds(1);
    out["cpu_seconds"] = pool_.cpu_seconds();
    return out;
  }

 private:
  static std::int64_t item(const TensorView& view) {
    return view.dtype == DType::kF4 || dtype_bits(view.dtype) % 8 != 0 ? 1 : item_size(view.dtype);
  }

  const std::int64_t gathered_;
  Buffers buffers_;
  MaskStore masks_;
  std::atomic<std::int64_t> read_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::pair<std::int64_t, std::function<py::object()>>> finished_;
  int seen_shards_ = 0;
  static const std::byte* bytes_of(const py::buffer_info& info) {
    return static_cast<const std::byte*>(info.ptr);
  }

  // By (shard, segment); kept alive by the shard until it is finished.
  std::map<std::pair<int, int>, std::pair<std::weak_ptr<const py::buffer_info>, DType>> merged_;
  std::map<std::pair<int, int>, std::weak_ptr<Combine>> combines_;
  const std::shared_ptr<ReadAhead> read_ahead_ = std::make_shared<ReadAhead>();
  JobQueue measures_;
  ShardWriter writer_;
  Pool pool_;  // last: its threads use everything above
};

}  // namespace

template <bool open>
void measure_key_counts(Engine& engine, std::int64_t ticket, const Tensors& tensors,
                        const Tensor* base, const std::string& compute,
                        std::vector<std::uint64_t> lows, int shift, std::int64_t buckets) {
  engine.submit(ticket,
                make_key_counts(tensors, base, compute, std::move(lows), shift, buckets, open),
                &key_counts_answer);
}

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
      .def(
          "fill_bytes", &Engine::fill_bytes, arg("shard"), arg("segment"), arg("data"),
          arg("dtype") = py::none(),
          "Bytes of a contiguous buffer, held until they are in the output's blocks; with a dtype, "
          "merged values.")
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
