// task_merge of a few bfloat16 tensors.
#include "task_merge/cuda/few.cuh"

namespace pymerge::cuda {

bool task_merge_bf16(const Stream& stream, const TaskParams<float>& params, std::size_t shared) {
  return launch_few<Same<DType::kBF16>>(stream, params, shared);
}

}  // namespace pymerge::cuda
