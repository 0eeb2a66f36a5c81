// Parameters of atrous spatial pyramid pooling, as both libraries check them.
#pragma once

#include "arguments.h"

namespace mobilevit_fast {

struct AsppParameters {
  const Tensor& pointwise;
  const OptionalTensor &pointwise_scale, &pointwise_bias;
  const Tensor& atrous;
  const OptionalTensor &atrous_scale, &atrous_bias;
  const Tensor& pool;
  const OptionalTensor &pool_scale, &pool_bias;
  const Tensor& project;
  const OptionalTensor &project_scale, &project_bias;

  int64_t channels() const { return pointwise.size(1); }
  int64_t features() const { return pointwise.size(0); }  // of a branch
  int64_t outputs() const { return project.size(0); }

  void check(const ParameterChecks& parameters) const {
    parameters.rank("pointwise weight", pointwise, 4);
    parameters.rank("atrous weight", atrous, 5);
    parameters.rank("project weight", project, 4);
    const int64_t rates = atrous.size(0);
    parameters.parameter("pointwise weight", pointwise, {features(), channels(), 1, 1}, false);
    parameters.parameter("pointwise scale", pointwise_scale, {features()});
    parameters.parameter("pointwise bias", pointwise_bias, {features()});
    parameters.parameter("atrous weight", atrous, {rates, features(), channels(), 3, 3}, false);
    parameters.parameter("atrous scale", atrous_scale, {rates, features()});
    parameters.parameter("atrous bias", atrous_bias, {rates, features()});
    parameters.parameter("pool weight", pool, {features(), channels(), 1, 1}, false);
    parameters.parameter("pool scale", pool_scale, {features()});
    parameters.parameter("pool bias", pool_bias, {features()});
    parameters.parameter("project weight", project, {outputs(), product_of(rates + 2, features()), 1, 1}, false);
    parameters.parameter("project scale", project_scale, {outputs()});
    parameters.parameter("project bias", project_bias, {outputs()});
  }

  // With the image and the rates.
  void check(const ArgumentChecks& arguments, const Tensor& x, const std::vector<int64_t>& rates) const {
    const int64_t count = static_cast<int64_t>(rates.size());
    arguments.expect(count > 0, "at least one rate, got none");
    for (const int64_t rate : rates) arguments.expect(rate > 0, "rates of at least 1, got ", rate);
    arguments.expect(atrous.dim() == 5 && atrous.size(0) == count,
                     "atrous weight of 5 dimensions, of which the first is ", count, ", the number of rates, got ",
                     shape_text(atrous));
    check(arguments);
    arguments.channels(channels());
    arguments.expect(x.size(2) > 0 && x.size(3) > 0, "an image of at least one pixel, got none");
  }
};

}  // namespace mobilevit_fast
