// Up to how many images the kernels for few of them are faster than those for every chip, by an H200's times.
// The table is written by `python -m benchmarks order --update`.
#pragma once

namespace mobilevit_fast::cuda {

enum class FewOperator { inverted_residual, mobilevit_transformer, classifier_head };

// Microseconds for one image and for eight: by the kernel for few images, and by the other one.
struct FewTimes {
  FewOperator op;
  int inputs, expanded, outputs;  // channels, as far as they tell an operator's regions apart
  float few[2], other[2];
};

constexpr FewTimes kFewTimes[] = {
    {FewOperator::inverted_residual, 32, 128, 64, {7.22f, 27.09f}, {11.17f, 28.04f}},
    {FewOperator::inverted_residual, 64, 256, 64, {5.53f, 42.16f}, {14.21f, 39.94f}},
    {FewOperator::inverted_residual, 64, 256, 96, {4.61f, 31.58f}, {20.08f, 23.14f}},
    {FewOperator::mobilevit_transformer, 96, 144, 0, {40.99f, 256.15f}, {85.63f, 600.08f}},
    {FewOperator::inverted_residual, 96, 384, 128, {5.75f, 24.71f}, {36.50f, 36.24f}},
    {FewOperator::mobilevit_transformer, 128, 192, 0, {75.33f, 241.91f}, {177.49f, 273.97f}},
    {FewOperator::inverted_residual, 128, 512, 160, {4.50f, 15.77f}, {54.02f, 53.46f}},
    {FewOperator::mobilevit_transformer, 160, 240, 0, {81.87f, 81.12f}, {259.50f, 172.30f}},
    {FewOperator::classifier_head, 0, 0, 0, {7.20f, 11.64f}, {11.26f, 9.29f}},
};

// Where lines through both meet, or `most`. With but a `share` of the tokens the kernel for few images takes as long,
// and the other one no less than that share of its time; of what was not measured, half a sequence is enough.
constexpr int few_images_of(FewOperator op, int inputs, int expanded, int outputs, int most, float share = 1.0f) {
  for (const FewTimes& row : kFewTimes) {
    if (row.op != op || row.inputs != inputs || row.expanded != expanded || row.outputs != outputs) continue;
    const float ahead = share * row.other[0] - row.few[0], behind = row.few[1] - share * row.other[1];
    if (ahead <= 0.0f) return 0;
    return behind <= 0.0f ? most : 1 + static_cast<int>(7 * ahead / (ahead + behind));
  }
  return share >= 0.5f ? most : 0;
}

}  // namespace mobilevit_fast::cuda
