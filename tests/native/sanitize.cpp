// Runs every CPU kernel, in every variant of this machine, on blocks of exact size over many shapes. Compiled together
// with the kernels under AddressSanitizer and UndefinedBehaviorSanitizer by test_sanitizers.py, without torch.
//
//   sanitize --variants
//   sanitize [--only TEXT] [--plant x|y|packed|scratch|stride]
//
// --variants prints the names of those that this machine can run; --only runs the cases whose name, "variant operator
// ...", contains the text; --plant makes that buffer one element too short, or the image stride too large for the
// addresses, which a sanitizer has to report.
#include <vector>

#include "cases.h"
#include "cpu/aspp/aspp.h"
#include "cpu/classifier_head/classifier_head.h"
#include "cpu/conv2d_bias_act/conv2d_bias_act.h"
#include "cpu/depthwise_conv2d/depthwise_conv2d.h"
#include "cpu/inverted_residual/inverted_residual.h"
#include "cpu/mobilevit_transformer/mobilevit_transformer.h"
#include "cpu/packed_sizes.h"
#include "pixel_cases.h"

namespace sanitize {
namespace {

struct Variant {
  Isa isa;
  void (*depthwise)(const DepthwiseConv2dParams&, int64_t, int64_t);
  void (*inverted_residual)(const InvertedResidualParams&, int64_t, int64_t);
  void (*conv)(const Conv2dBiasActParams&, int64_t, int64_t);
  void (*winograd)(const Conv2dBiasActParams&, int64_t, int64_t);
  void (*pool)(const ClassifierHeadParams&, int64_t, int64_t);
  void (*classify)(const ClassifierHeadParams&, int64_t, int64_t);
  void (*aspp_pool)(const AsppParams&, int64_t, int64_t);
  void (*aspp)(const AsppParams&, int64_t, int64_t);
  Plan (*plan)(const MobileViTTransformerParams&);
  void (*bundles)(const MobileViTTransformerParams&, int64_t, int64_t);
  void (*step)(const MobileViTTransformerParams&, int64_t, int64_t, int64_t);
  void (*resize)(const MobileViTTransformerParams&, int64_t, int64_t);
};

#define MVF_ENTRY(isa)                 \
  {Isa::isa,                           \
   isa::depthwise_conv2d,              \
   isa::inverted_residual,             \
   isa::conv2d_bias_act,               \
   isa::conv2d_winograd,               \
   isa::pool_expansion,                \
   isa::classify,                      \
   isa::aspp_pool,                     \
   isa::aspp,                          \
   isa::mobilevit_transformer_plan,    \
   isa::mobilevit_transformer_bundles, \
   isa::mobilevit_transformer_step,    \
   isa::mobilevit_transformer_resize},
constexpr Variant kVariants[] = {MVF_CPU_ISAS(MVF_ENTRY)};
#undef MVF_ENTRY

const Variant* variant;
std::string only;
int64_t runs = 0, factors = 1;  // factors in a word of the variant's packed weights: channels are multiples of it
RowGroups groups = kVectorRows;

constexpr Layout kLayouts[] = {Layout::channels_last, Layout::spread, Layout::nchw};

// Whether the case of this name is to run: not where another variant computes it.
bool begins(const char* op, Element element, bool even, std::initializer_list<int64_t> numbers) {
  if (product_isa(variant->isa, element == Element::bfloat16, even) != variant->isa) return false;
  running = std::string(isa_name(variant->isa)) + " " + op + (element == Element::float32 ? " float32" : " bfloat16");
  for (const int64_t number : numbers) running += " " + std::to_string(number);
  const bool chosen = running.find(only) != std::string::npos;
  runs += chosen;
  return chosen;
}

void run_depthwise(int64_t channels, Size size, Geometry geometry, Element element, Layout layout) {
  const Window w = geometry.window();
  if (!begins("depthwise_conv2d", element, false,
              {channels, size.height, size.width, w.kernel_h, w.stride_h, w.dilation_h})) {
    return;
  }
  const Image image(size.batch, channels, size.height, size.width, element, layout);
  const ImageBatch x = image_batch(image);
  Buffer weight("weight", w.kernel_h * w.kernel_w * channels, element);
  Buffer scale("scale", channels), bias("bias", channels);
  weight.fill(1), scale.fill(0.5f, 1), bias.fill(1);
  DepthwiseConv2dParams p{};
  p.x = x.data, p.weight = weight;
  p.scale = scale.floats(), p.bias = bias.floats();
  p.element = element;
  p.activation = next_activation();
  p.batch = size.batch, p.channels = channels, p.in_h = size.height, p.in_w = size.width;
  set_output(w, size.height, size.width, p.out_h, p.out_w);
  p.x_image_stride = x.image_stride, p.x_row_stride = x.row_stride, p.x_pixel_stride = x.pixel_stride;
  p.kernel_h = w.kernel_h, p.kernel_w = w.kernel_w, p.stride_h = w.stride_h, p.stride_w = w.stride_w;
  p.padding_h = w.padding_h, p.padding_w = w.padding_w, p.dilation_h = w.dilation_h, p.dilation_w = w.dilation_w;
  p.rows_per_task = 2, p.channels_per_task = channels >= 128 ? 64 : channels;
  Buffer y("y", size.batch * p.out_h * p.out_w * channels, element);
  p.y = y;
  in_pieces(task_count(p), y, [&](int64_t begin, int64_t end) { variant->depthwise(p, begin, end); });
}

void run_inverted_residual(bool expands, int64_t channels, int64_t expanded, int64_t outputs, Size size,
                           Geometry geometry, Element element, Layout layout, int64_t rows_per_task) {
  const Window w = geometry.window();
  const bool even = (!expands || channels % 2 == 0) && expanded % 2 == 0;
  if (!begins(expands ? "inverted_residual" : "depthwise_separable_conv2d", element, even,
              {channels, expanded, outputs, size.height, size.width, w.kernel_h, w.stride_h, w.dilation_h})) {
    return;
  }
  const Image image(size.batch, channels, size.height, size.width, element, layout);
  const int64_t floats = (expands ? panel_floats(channels / factors, expanded) : 0) +
                         depthwise_floats(w.kernel_h * w.kernel_w, expanded) +
                         panel_floats(expanded / factors, outputs);
  Buffer packed("packed", floats);
  packed.fill_words(0.1f);
  InvertedResidualParams p{};
  p.x = image_batch(image), p.element = element, p.packed = packed;
  p.expanded = expanded, p.outputs = outputs, p.window = w, p.expands = expands;
  set_output(w, size.height, size.width, p.out_h, p.out_w);
  p.residual = expands && channels == outputs && p.out_h == size.height && p.out_w == size.width;
  p.expand_activation = p.depthwise_activation = next_activation();
  p.project_activation = expands ? Activation::none : Activation::silu;
  p.rows_per_task = smaller(p.out_h, rows_per_task);
  Buffer y("y", size.batch * p.out_h * p.out_w * outputs, element);
  p.y = y;
  in_pieces(size.batch * strips(p), y, [&](int64_t begin, int64_t end) { variant->inverted_residual(p, begin, end); });
}

void run_conv(int64_t channels, int64_t channels2, int64_t outputs, Size size, Geometry geometry, Element element,
              Layout layout, int64_t groups, bool winograd = false) {
  const Window w = geometry.window();
  // Winograd's algorithm is for float32 words; the rest is multiplied in pairs where these are of tiles.
  const bool even = !winograd && multiplies_tiles(variant->isa) && (channels + channels2) % 2 == 0;
  if (word_factors(variant->isa) > 1 && !even) return;
  if (!begins(winograd ? "conv2d_winograd" : "conv2d_bias_act", element, even,
              {channels, channels2, outputs, size.height, size.width, w.kernel_h, w.stride_h, w.dilation_h})) {
    return;
  }
  const Image image(size.batch, channels, size.height, size.width, element, layout);
  const Image image2(size.batch, larger(1, channels2), size.height, size.width, element, kLayouts[0]);
  const int64_t entries = winograd ? kWinogradEntries : w.kernel_h * w.kernel_w;
  Buffer packed("packed", panel_floats((channels + channels2) * entries / factors, outputs));
  packed.fill_words(0.1f);
  Conv2dBiasActParams p{};
  p.x = image_batch(image), p.element = element, p.packed = packed;
  if (channels2 > 0) p.x2 = image_batch(image2);
  p.outputs = outputs, p.window = w, p.activation = next_activation();
  set_output(w, size.height, size.width, p.out_h, p.out_w);
  p.groups = smaller(winograd ? winograd_tiles(p) : p.out_h, groups);
  p.slices = groups > 1 ? panel_count(outputs) : 1;
  Buffer y("y", size.batch * p.out_h * p.out_w * outputs, element);
  p.y = y;
  in_pieces(winograd ? p.groups * p.slices : tasks(p), y,
            [&](int64_t begin, int64_t end) { (winograd ? variant->winograd : variant->conv)(p, begin, end); });
}

void run_classifier(int64_t channels, int64_t expanded, int64_t classes, Size size, Element element, Layout layout) {
  const bool even = channels % 2 == 0 && expanded % 2 == 0;
  if (!begins("classifier_head", element, even, {channels, expanded, classes, size.height, size.width})) return;
  const Image image(size.batch, channels, size.height, size.width, element, layout);
  Buffer packed("packed", panel_floats(channels / factors, expanded) + panel_floats(expanded / factors, classes));
  Buffer pooled("pooled", size.batch * round_up(expanded, kBlock)), y("y", size.batch * classes, element);
  packed.fill_words(0.1f);
  ClassifierHeadParams p{};
  p.x = image_batch(image), p.element = element, p.y = y, p.pooled = pooled, p.packed = packed;
  p.expanded = expanded, p.classes = classes, p.activation = next_activation();
  in_pieces(pool_tasks(p), pooled, [&](int64_t begin, int64_t end) { variant->pool(p, begin, end); });
  in_pieces(classify_tasks(p), y, [&](int64_t begin, int64_t end) { variant->classify(p, begin, end); });
}

void run_aspp(int64_t channels, int64_t features, int64_t outputs, Size size, std::vector<int64_t> rates,
              Element element, Layout layout, int64_t tile_rows, int64_t tile_columns) {
  if (!begins("aspp", element, false, {channels, features, outputs, size.batch, size.height, size.width, rates[0]}))
    return;
  const Image image(size.batch, channels, size.height, size.width, element, layout);
  const bool direct = element == Element::float32 && layout != Layout::nchw;
  const int64_t count = static_cast<int64_t>(rates.size());
  const AsppSizes sizes{features, channels, count, outputs, (count + 2) * features};
  Buffer packed("packed", sizes.packed_words(Products()));
  Buffer pixels("pixels", direct ? 0 : size.batch * size.height * size.width * channels);
  Buffer image_bias("image_bias", size.batch * round_up(outputs, kBlock));
  Buffer y("y", size.batch * size.height * size.width * outputs, element);
  packed.fill_words(0.1f);
  AsppParams p{};
  p.x = image_batch(image), p.element = element, p.y = y, p.packed = packed;
  p.pixels = direct ? nullptr : pixels.floats(), p.image_bias = image_bias;
  p.features = features, p.outputs = outputs, p.activation = next_activation();
  p.rates = rates.data(), p.rate_count = count;
  p.tile_rows = smaller(size.height, tile_rows), p.tile_columns = smaller(size.width, tile_columns);
  in_pieces(aspp_pool_tasks(p), image_bias, [&](int64_t begin, int64_t end) { variant->aspp_pool(p, begin, end); });
  in_pieces(aspp_tasks(p), y, [&](int64_t begin, int64_t end) { variant->aspp(p, begin, end); });
}

struct Transformer {
  int64_t channels, width, hidden, outputs, layers, heads;
};

void run_transformer(Transformer t, Size size, int64_t patch_h, int64_t patch_w, Element element) {
  const bool even = t.channels % 2 == 0 && t.width % 2 == 0 && t.hidden % 2 == 0;
  if (!begins("mobilevit_transformer", element, even,
              {t.channels, t.width, t.heads, size.batch, size.height, size.width, patch_h, patch_w})) {
    return;
  }
  const Image image(size.batch, t.channels, size.height, size.width, element, kLayouts[t.outputs % 2]);
  const int64_t depth = t.width / factors;
  const auto linear = [](int64_t words, int64_t outputs) { return row_group_floats(words, outputs, groups); };
  const int64_t layer = 4 * t.width + linear(depth, 3 * t.width) + linear(depth, t.width) + linear(depth, t.hidden) +
                        linear(t.hidden / factors, t.width);
  const int64_t floats =
      linear(t.channels / factors, t.width) + t.layers * layer + 2 * t.width + linear(depth, t.outputs);
  Buffer packed("packed", floats);
  packed.fill_words(0.2f);
  MobileViTTransformerParams p{};
  p.x = image_batch(image), p.element = element;
  p.packed = packed, p.packed_end = p.packed + floats;
  p.width = t.width, p.hidden = t.hidden, p.outputs = t.outputs, p.layers = t.layers, p.num_heads = t.heads;
  p.patch_h = patch_h, p.patch_w = patch_w, p.eps = 1e-5f;
  p.grid_h = ceil_div(size.height, patch_h), p.grid_w = ceil_div(size.width, patch_w);
  p.mlp_activation = Activation::silu, p.out_activation = next_activation();
  const int64_t height = p.grid_h * patch_h, width = p.grid_w * patch_w;
  const bool resized = height != size.height || width != size.width;
  Buffer y("y", size.batch * size.height * size.width * t.outputs, element);
  Buffer sums("resized", resized ? size.batch * height * width * t.outputs : 0);
  p.y = y, p.resized = resized ? sums.floats() : nullptr;
  const Plan plan = variant->plan(p);
  const int64_t rows = size.batch * size.height;

  for (const int64_t units : {1, 3}) {  // of a bundle
    y.clear(), sums.clear();
    p.blocks_per_bundle = units * plan.blocks_per_unit;
    in_pieces(ceil_div(plan.blocks, p.blocks_per_bundle), resized ? sums : y,
              [&](int64_t begin, int64_t end) { variant->bundles(p, begin, end); });
    if (resized) in_pieces(rows, y, [&](int64_t begin, int64_t end) { variant->resize(p, begin, end); });
  }

  y.clear(), sums.clear();
  Buffer shared("shared", plan.shared_floats);
  p.shared = shared;
  for (int64_t step = 0; step <= t.layers; ++step) {
    const int64_t middle = (plan.blocks + 1) / 2;
    variant->step(p, step, middle, plan.blocks);
    variant->step(p, step, 0, middle);
  }
  (resized ? sums : y).expect_finite();
  if (resized) in_pieces(rows, y, [&](int64_t begin, int64_t end) { variant->resize(p, begin, end); });
}

void depthwise_cases(Element element) {
  for (const int64_t channels : {1, 3, 7, 17, 24, 32, 48, 64, 65, 100, 192}) {
    int64_t i = 0;
    for (const Geometry& geometry : kGeometries) {
      for (const int64_t more : {0, 1}) {
        const Size size = next_size(i, 5, more == 0 ? 3 : 9);
        run_depthwise(channels, size, geometry, element, kLayouts[(i + more) % 2]);
      }
    }
  }
}

void inverted_residual_cases(Element element) {
  // Inputs, expanded channels, outputs and stride of the three model sizes.
  constexpr int64_t kModel[][4] = {
      {16, 32, 16, 1},  {16, 32, 24, 2},  {24, 48, 24, 1},  {24, 48, 48, 2},   {48, 96, 64, 2},    {64, 128, 80, 2},
      {16, 64, 32, 1},  {32, 128, 48, 2}, {48, 192, 48, 1}, {48, 192, 64, 2},  {64, 256, 80, 2},   {80, 320, 96, 2},
      {32, 128, 64, 2}, {64, 256, 64, 1}, {64, 256, 96, 2}, {96, 384, 128, 2}, {128, 512, 160, 2},
  };
  int64_t i = 0;
  for (const auto& m : kModel) {
    const Size size = kSizes[i++ % 4];
    const Geometry geometry{3, m[3], 1, 1};
    run_inverted_residual(true, m[0], m[1], m[2], size, geometry, element, kLayouts[i % 3], 3);
    run_inverted_residual(false, m[1], m[1], m[2], size, geometry, element, kLayouts[(i + 1) % 3], 100);
  }
  for (const int64_t few : kFewChannels) {
    const int64_t channels = few * factors;
    for (const Geometry& geometry : kGeometries) {
      const Size size = next_size(i, 5, 5);
      const int64_t outputs = i % 2 == 0 ? channels : channels + 13;
      run_inverted_residual(true, channels, 2 * channels + factors, outputs, size, geometry, element, kLayouts[i % 3],
                            i % 4 + 1);
      run_inverted_residual(false, channels, channels, outputs, size, geometry, element, kLayouts[i % 3], i % 3 + 1);
    }
  }
}

void conv_cases(Element element) {
  int64_t i = 0;
  for (const int64_t outputs : {1, 7, 16, 17, 24, 48, 65, 100}) {
    for (const Geometry& geometry : kGeometries) {
      const Size size = next_size(i, 5, 5);
      const int64_t channels = kFewChannels[i % (geometry.kernel > 3 ? 5 : 7)],
                    channels2 = i % 3 == 0 ? kFewChannels[i / 3 % 7] : 0;
      run_conv(channels * factors, channels2 * factors, outputs, size, geometry, element, kLayouts[i % 3], i % 4 + 1);
    }
  }
  for (const int64_t outputs : {1, 16, 17, 48, 65, 100}) {
    for (const int64_t padding : {0, 1, 2}) {
      const Size size = next_size(i, 3, 3);
      const int64_t channels2 = i % 3 == 0 ? kFewChannels[i / 3 % 7] : 0;
      run_conv(kFewChannels[i % 7] * factors, channels2 * factors, outputs, size, {3, 1, padding, 1}, element,
               kLayouts[i % 3], i % 6 + 1, true);
    }
  }
  for (const int64_t width : {5, 6, 7, 11, 12, 13, 24, 26}) {  // the stem
    run_conv(3, 0, 16, {2, 9, width}, {3, 2, 1, 1}, element, kLayouts[width % 3], width % 3 + 1);
  }
  const bool winograd = word_factors(variant->isa) == 1;
  for (const int64_t channels : {48, 64, 80, 160}) {  // before and behind the transformers
    run_conv(channels, 0, channels, {1, 3, 4}, {3, 1, 1, 1}, element, kLayouts[0], 2, winograd);
    run_conv(channels, channels, channels, {1, 2, 3}, {3, 1, 1, 1}, element, kLayouts[0], 1, winograd);
  }
  for (const int64_t dilation : {6, 12, 18}) {  // the segmentation head
    run_conv(20, 0, 40, {1, 8, 9}, {3, 1, dilation, dilation}, element, kLayouts[dilation % 3], dilation / 3);
    run_conv(40, 0, 21, {1, 1, 1}, {1, 1, 0, 1}, element, kLayouts[0], 1);
  }
}

void classifier_cases(Element element) {
  run_classifier(80, 320, 1000, {1, 3, 3}, element, kLayouts[0]);
  run_classifier(96, 384, 10, {2, 4, 3}, element, kLayouts[1]);
  run_classifier(160, 640, 21, {1, 2, 2}, element, kLayouts[2]);
  int64_t i = 0;
  for (const int64_t channels : kFewChannels) {
    for (const int64_t classes : {1, 5, 16, 100}) {
      const Size size{i % 5 == 0 ? 67 : i % 3 + 1, i % 4 == 0 ? 9 : 1, i % 4 == 0 ? 15 : i % 7 + 1};
      run_classifier(channels * factors, (3 * channels + i % 2) * factors, classes, size, element, kLayouts[i % 3]);
      ++i;
    }
  }
}

void aspp_cases(Element element) {
  int64_t i = 0;
  for (const int64_t channels : kFewChannels) {
    for (const int64_t features : {1, 16, 21, 65}) {
      const Size size{i % 3 + 1, i % 5 + 1, i % 7 * 2 + 1};
      const std::vector<int64_t> rates = i % 2 == 0 ? std::vector<int64_t>{1, 3, 7} : std::vector<int64_t>{i % 4 + 1};
      run_aspp(channels, features, kFewChannels[i % 7], size, rates, element, kLayouts[i % 3], i % 4 + 1,
               i / 2 % 3 + 1);
      ++i;
    }
  }
  run_aspp(80, 48, 48, {1, 13, 14}, {6, 12, 18}, element, kLayouts[0], 3, 2);
}

void transformer_cases(Element element) {
  const Size kImages[] = {{1, 4, 4}, {1, 3, 5}, {3, 2, 2}, {1, 6, 4}, {1, 7, 9}, {2, 5, 3}, {1, 10, 12}, {5, 1, 1}};
  int64_t i = 0;
  for (const int64_t width : {64, 80, 96, 120, 144, 192, 240}) {  // of the three model sizes
    run_transformer({width / 2, width, 2 * width, width / 2, 1, 4}, kImages[i++ % 4], 2, 2, element);
  }
  for (const Size& size : kImages) {
    for (const int64_t patch : {1, 2, 3, 4}) {
      const int64_t heads = i % 4 + 1, few = kFewChannels[i % 7];
      Transformer t{few * factors, heads * (i % 9 + 3) * factors,       (i % 30 + 1) * factors, kFewChannels[i / 2 % 7],
                    i % 2 + 1,     i % 3 == 0 ? heads * factors : heads};
      run_transformer(t, size, patch, i % 2 == 0 ? patch : 2, element);
      ++i;
    }
  }
  run_transformer({8, 12, 24, 8, 1, 2}, {1, 9, 17}, 1, 1, element);  // a sequence of several blocks
}

void run_all() {
  pixel_cases(variant->isa, [](const char* op, auto numbers) { return begins(op, Element::float32, false, numbers); });
  for (const Element element : {Element::float32, Element::bfloat16}) {
    depthwise_cases(element);
    inverted_residual_cases(element);
    conv_cases(element);
    classifier_cases(element);
    aspp_cases(element);
    transformer_cases(element);
  }
}

}  // namespace
}  // namespace sanitize

int main(int argc, char** argv) {
  using namespace sanitize;
  const bool listing = argc == 2 && std::string(argv[1]) == "--variants";
  for (int i = 1; i + 1 < argc; i += 2) (std::string(argv[i]) == "--only" ? only : planted) = argv[i + 1];
  for (const Variant& each : kVariants) {
    if (!isa_available(each.isa)) continue;
    if (listing) std::puts(isa_name(each.isa));
    variant = &each, factors = word_factors(each.isa);
    groups = multiplies_tiles(each.isa) ? kTileRows : kVectorRows;
    if (!listing) run_all();
  }
  if (!listing) std::printf("%lld cases passed\n", static_cast<long long>(runs));
  return 0;
}
