#pragma once
// MLX defines bfloat mathematics here; the runner has its own.
