// From CUDA's kernel arguments and indices to the parameters of a Metal kernel.
#pragma once
namespace msl {
struct Grid { uint threads[3]; }; // Metal counts threads; CUDA's blocks may reach past them
enum Parameter {
  BUFFER, thread_position_in_grid, thread_position_in_threadgroup, threadgroup_position_in_grid,
  thread_index_in_simdgroup, simdgroup_index_in_threadgroup, thread_index_in_threadgroup
};
struct Argument { Parameter kind; int index; };

inline bool outside(const Grid& grid) {
  return blockIdx.x * blockDim.x + threadIdx.x >= grid.threads[0] ||
         blockIdx.y * blockDim.y + threadIdx.y >= grid.threads[1] ||
         blockIdx.z * blockDim.z + threadIdx.z >= grid.threads[2];
}
template <class A>
A position(Parameter kind) {
  const uint index = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  uint v[3] = {threadIdx.x, threadIdx.y, threadIdx.z};
  if (kind == thread_position_in_grid) {
    v[0] += blockIdx.x * blockDim.x;
    v[1] += blockIdx.y * blockDim.y;
    v[2] += blockIdx.z * blockDim.z;
  }
  if (kind == threadgroup_position_in_grid) v[0] = blockIdx.x, v[1] = blockIdx.y, v[2] = blockIdx.z;
  if (kind == thread_index_in_simdgroup) v[0] = index % 32;
  if (kind == simdgroup_index_in_threadgroup) v[0] = index / 32;
  if (kind == thread_index_in_threadgroup) v[0] = index;
  if constexpr (std::is_same_v<A, uint3>) return A(v[0], v[1], v[2]);
  else return A(v[0]);
}
template <class A>
A argument(Argument a, void* const* buffers) {
  if constexpr (std::is_reference_v<A>) return *(std::remove_reference_t<A>*)buffers[a.index];
  else if constexpr (std::is_pointer_v<A>) return (A)buffers[a.index];
  else return position<A>(a.kind);
}
template <class... A, size_t... I>
void call_with(void (*f)(A...), const Argument* a, void* const* buffers, std::index_sequence<I...>) {
  f(argument<A>(a[I], buffers)...);
}
template <class... A>
void call(void (*f)(A...), const Argument* a, void* const* buffers) {
  call_with(f, a, buffers, std::index_sequence_for<A...>{});
}
} // namespace msl
