// From the runtime's untyped call to the kernel's own parameters.
#pragma once
namespace msl {
// Threadgroup arrays: each declaration (site) is one block of the group's memory, the same for all its threads.
template <class T>
inline T& threadgroup_memory(int site) {
  return *(T*)msl_threadgroup_memory(site, sizeof(T), alignof(T));
}

enum Parameter {
  BUFFER, thread_position_in_grid, thread_position_in_threadgroup, threadgroup_position_in_grid,
  threadgroups_per_grid, threads_per_grid, grid_size, threads_per_threadgroup, dispatch_threads_per_threadgroup,
  grid_origin, thread_index_in_threadgroup, thread_index_in_simdgroup, simdgroup_index_in_threadgroup,
  simdgroups_per_threadgroup, dispatch_simdgroups_per_threadgroup, threads_per_simdgroup, thread_execution_width,
  quadgroup_index_in_threadgroup, thread_index_in_quadgroup, quadgroups_per_threadgroup
};
struct Argument { Parameter kind; int index; };

template <class V>
struct width { static constexpr int n = 1; };
template <class T, int N>
struct width<metal::vec<T, N>> { static constexpr int n = N; };

template <class A>
A position(Parameter kind) {
  uint v[3] = {0, 0, 0};
  auto take = [&](const uint32_t* s) { for (int i = 0; i < 3; i++) v[i] = s[i]; };
  const uint32_t* size = launch.group_size; // of this group: groups at the grid's edge are smaller
  uint threads = size[0] * size[1] * size[2];
  switch (kind) {
    case thread_position_in_grid: take(current->in_grid); break;
    case thread_position_in_threadgroup: take(current->in_group); break;
    case threadgroup_position_in_grid: take(current->group); break;
    case threadgroups_per_grid: take(launch.groups); break;
    case threads_per_grid: case grid_size: take(launch.grid); break;
    case threads_per_threadgroup: take(size); break;
    case dispatch_threads_per_threadgroup: take(launch.threadgroup); break;
    case thread_index_in_threadgroup: v[0] = current->index; break;
    case thread_index_in_simdgroup: v[0] = current->lane; break;
    case simdgroup_index_in_threadgroup: v[0] = current->index / 32; break;
    case simdgroups_per_threadgroup: case dispatch_simdgroups_per_threadgroup: v[0] = (threads + 31) / 32; break;
    case threads_per_simdgroup: case thread_execution_width: v[0] = 32; break;
    case quadgroup_index_in_threadgroup: v[0] = current->index / 4; break;
    case thread_index_in_quadgroup: v[0] = current->index % 4; break;
    case quadgroups_per_threadgroup: v[0] = (threads + 3) / 4; break;
    default: break;
  }
  if constexpr (width<A>::n == 1) return A(v[0]);
  else if constexpr (width<A>::n == 2) return A(v[0], v[1]);
  else return A(v[0], v[1], v[2]);
}

template <class A>
A argument(Argument a, void** buffers) {
  if constexpr (std::is_reference_v<A>) return *(std::remove_reference_t<A>*)buffers[a.index];
  else if constexpr (std::is_pointer_v<A>) return (A)buffers[a.index];
  else return position<A>(a.kind);
}
template <class... A, size_t... I>
void call_with(void (*f)(A...), const Argument* a, void** buffers, std::index_sequence<I...>) {
  f(argument<A>(a[I], buffers)...);
}
template <class... A>
void call(void (*f)(A...), const Argument* a, void** buffers) {
  call_with(f, a, buffers, std::index_sequence_for<A...>{});
}
} // namespace msl
