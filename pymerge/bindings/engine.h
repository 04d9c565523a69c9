// The streaming engine: measures in flight, combines that fill output blocks, one pool for both.
// Python decides in between; it is told which measures are done and is never waited for by a tile.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "borrowed.h"
#include "core/error.h"
#include "io/shard_writer.h"
#include "jobs.h"
#include "made.h"
#include "pack/packing.h"

namespace pymerge::bindings {

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

  void fill_bytes(int shard, int segment, const py::buffer& bytes) {
    writer_.set_filler(shard, segment,
                       [held = borrowed_.hold(bytes.request())](
                           std::int64_t begin, std::int64_t length, std::byte* out, Scratch&) {
                         std::memcpy(out, static_cast<const std::byte*>(held->ptr) + begin,
                                     static_cast<std::size_t>(length));
                         return std::int64_t{0};
                       });
  }

  // Merged elsewhere; workers read it piece by piece (see Made). Large pieces: each takes the GIL.
  void fill_made(int shard, int segment, py::object made, const std::string& dtype) {
    const auto held =
        std::make_shared<const Made>(borrowed_.hold(std::move(made)), to_dtype(dtype));
    made_[{shard, segment}] = held;
    writer_.set_filler(
        shard, segment,
        [held](std::int64_t begin, std::int64_t length, std::byte* out, Scratch&) {
          return held->fill(begin, length, out);
        },
        kWholeBlocks);
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

  // A tensor in the form of GGUF files.
  void fill_packed(int shard, int segment, const Tensor& tensor, const std::string& format) {
    const auto packing = std::make_shared<const Packing>(tensor.view, format);
    packings_[{shard, segment}] = packing;
    writer_.set_filler(
        shard, segment,
        [this, packing](std::int64_t begin, std::int64_t length, std::byte* out, Scratch& scratch) {
          read_ += packing->bytes_read(length);
          return packing->fill(begin, length, out, scratch);
        });
  }

  // Flat index of the first non-finite value of a segment: of a combine, runs it again from the
  // start.
  std::int64_t locate_nonfinite(int shard, int segment) {
    if (const auto found = made_.find({shard, segment}); found != made_.end()) {
      const std::shared_ptr<const Made> made = found->second.lock();
      if (made == nullptr) return -1;
      const py::gil_scoped_release release;
      pool_.stop();  // so that whatever was read has been looked at
      return made->find_nonfinite();
    }
    Scratch scratch;
    if (const auto found = packings_.find({shard, segment}); found != packings_.end()) {
      const auto packing = found->second.lock();
      const py::gil_scoped_release release;
      return packing ? packing->find_nonfinite(scratch) : -1;
    }
    const std::shared_ptr<Combine> combine = combines_.at({shard, segment}).lock();
    if (combine == nullptr) return -1;
    const py::gil_scoped_release release;
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
    borrowed_.release();
    if (const auto error = pool_.error()) raise(error);
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
    borrowed_.release();
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
  // Any number of times: a Python exception can be thrown on only once.
  [[noreturn]] static void raise(const std::exception_ptr& error) {
    try {
      std::rethrow_exception(error);
    } catch (const py::error_already_set& python) {
      PyErr_SetObject(python.type().ptr(), python.value().ptr());
      throw py::error_already_set();
    }
  }

  static std::int64_t item(const TensorView& view) {
    return view.dtype == DType::kF4 || dtype_bits(view.dtype) % 8 != 0 ? 1 : item_size(view.dtype);
  }

  const std::int64_t gathered_;
  Borrowed borrowed_;
  MaskStore masks_;
  std::atomic<std::int64_t> read_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::pair<std::int64_t, std::function<py::object()>>> finished_;
  int seen_shards_ = 0;

  // By (shard, segment); kept alive by the shard until it is finished.
  std::map<std::pair<int, int>, std::weak_ptr<const Made>> made_;
  std::map<std::pair<int, int>, std::weak_ptr<Combine>> combines_;
  std::map<std::pair<int, int>, std::weak_ptr<const Packing>> packings_;
  const std::shared_ptr<ReadAhead> read_ahead_ = std::make_shared<ReadAhead>();
  JobQueue measures_;
  ShardWriter writer_;
  Pool pool_;  // last: its threads use everything above
};

}  // namespace pymerge::bindings
