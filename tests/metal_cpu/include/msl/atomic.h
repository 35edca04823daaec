// Relaxed atomics. One GPU thread runs at a time and yields only at barriers and simdgroup operations.
#pragma once
namespace metal {
enum memory_order { memory_order_relaxed };
enum thread_scope { thread_scope_device };
template <class T>
struct atomic { T v; };
using atomic_int = atomic<int>;
using atomic_uint = atomic<uint>;
using atomic_float = atomic<float>;
#define MSL_ATOMIC(name, expression)                                                                      \
  template <class T>                                                                                      \
  MSL_MACHINE T atomic_##name##_explicit(volatile atomic<T>* a, std::type_identity_t<T> b, memory_order) { \
    T o = a->v;                                                                                           \
    a->v = T(expression);                                                                                 \
    return o;                                                                                             \
  }
MSL_ATOMIC(fetch_add, o + b) MSL_ATOMIC(fetch_sub, o - b) MSL_ATOMIC(fetch_or, o | b) MSL_ATOMIC(fetch_and, o & b)
MSL_ATOMIC(fetch_xor, o ^ b) MSL_ATOMIC(fetch_min, metal::min(o, b)) MSL_ATOMIC(fetch_max, metal::max(o, b))
MSL_ATOMIC(exchange, b)
template <class T>
MSL_MACHINE T atomic_load_explicit(const volatile atomic<T>* a, memory_order) { return a->v; }
template <class T>
MSL_MACHINE void atomic_store_explicit(volatile atomic<T>* a, std::type_identity_t<T> b, memory_order) { a->v = b; }
template <class T>
MSL_MACHINE bool atomic_compare_exchange_weak_explicit(volatile atomic<T>* a, T* expected, T desired, memory_order,
                                                       memory_order) {
  if (__builtin_memcmp((const void*)&a->v, expected, sizeof(T)) == 0) {
    a->v = desired;
    return true;
  }
  *expected = a->v;
  return false;
}
} // namespace metal
