// task_merge of a few float16 tensors.
#include "task_merge/cuda/few.cuh"

namespace pymerge::cuda {

bool task_merge_f16(const Stream& stream, const TaskParams<float>& params, std::size_t shared) {
  return launch_few<Same<DType::kF16>>(stream, params, shared);
}

}  // namespace pymerge::cuda
