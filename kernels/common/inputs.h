// The tensors that one request reads, handed to kernels piece by piece: in place where that is
// cheap, else as copies that fit in the second-level cache. Reading runs ahead of the kernels, and
// nothing stays resident behind them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/canonical.h"
#include "io/tensor_view.h"
#include "runtime/aligned_buffer.h"

namespace pymerge {

class Inputs {
 public:
  // `base` may be an empty view: then there is none.
  Inputs(std::vector<TensorView> tensors, TensorView base);

  int size() const { return static_cast<int>(tensors_.size()); }
  std::int64_t count() const { return tensors_.empty() ? base_.count : tensors_[0].count; }
  // Elements of a piece at most; the first of a range, which need not start a block, may have
  // fewer.
  std::int64_t piece_elements() const;
  bool has_base() const { return base_.exists(); }
  const std::vector<TensorView>& tensors() const { return tensors_; }
  const TensorView& base() const { return base_; }

  // From now on, pieces' operands hold the whole segments of rows (segments.h) that a piece lies
  // in.
  void reach_over_segments(std::int64_t row) { row_ = row; }

  // Bytes that one pass over `range` reads.
  std::int64_t bytes(Range range) const;

  // What one call of a kernel sees: elements `range` of every tensor. `base` may be null.
  struct Piece {
    Range range;
    const Operand* tensors;
    const Operand* base;
    bool starts = true;  // the first one of a pass over a range
  };
  // Calls body(piece) for consecutive pieces of `range`, in order, each ending at a canonical
  // block's end (or the range's).
  template <typename Body>
  void for_each_piece(Range range, Scratch& scratch, const Body& body) const {
    Pieces pieces(*this, range, scratch);
    while (pieces.next()) body(pieces.piece());
  }

  void will_need(Range range) const {
    each([&](const TensorView& view) { view.will_need(range); });
  }
  // Has the page cache hold all of the tensors, so that looks here and there need no disk.
  void load(Scratch& scratch) const { load(scratch.take_copies(MappedFile::kHugePage)); }
  void load(std::byte* buffer) const {
    each([&](const TensorView& view) { view.load(buffer); });
  }

  // Elements `range` on their own, for a look here and there: always copied from files, so that no
  // page of theirs becomes resident. Of all tensors, or of number `only` and the base; the others
  // are then not to be touched. Valid until `scratch` gives copies again.
  void peek(Range range, Scratch& scratch, std::vector<Operand>& operands, Piece& piece,
            int only = -1) const;

 private:
  class Pieces {
   public:
    Pieces(const Inputs& inputs, Range range, Scratch& scratch);
    ~Pieces();
    Pieces(const Pieces&) = delete;
    Pieces& operator=(const Pieces&) = delete;
    bool next();
    const Piece& piece() const { return piece_; }

   private:
    const Inputs& inputs_;
    const Range range_;
    Scratch& scratch_;
    std::int64_t at_;
    const std::int64_t unit_;        // pieces end at multiples of this
    const std::int64_t step_;        // elements of a piece, at most
    const std::int64_t room_;        // elements of a copy, at most
    std::vector<Operand> operands_;  // the tensors, then the base
    std::vector<bool> in_place_;     // of the same
    std::byte* copies_ = nullptr;    // one after the other, `room_` elements each
    Piece piece_{};
  };

  // What pieces end at multiples of: whole blocks, and whole rows as well where a piece holds such
  // a thing, so that few rows are read twice.
  std::int64_t piece_unit() const;
  void ask_ahead(Range range) const;
  void let_go(Range range) const;
  template <typename Body>
  void each(const Body& body) const {
    for (const TensorView& tensor : tensors_) body(tensor);
    if (has_base()) body(base_);
  }

  std::vector<TensorView> tensors_;
  TensorView base_;
  std::int64_t row_ = 0;  // 0: nothing beyond a piece is asked for
  // Per window: elements that this pass has not read yet.
  std::unique_ptr<std::atomic<std::int64_t>[]> left_;
};

}  // namespace pymerge
