// A server of the Open Inference Protocol whose every answer a test scripts. Useful for: what a peer that is broken,
// strange or hostile does to a client.
#ifndef SLUICE_TESTS_TESTING_SCRIPTED_INFERENCE_H_
#define SLUICE_TESTS_TESTING_SCRIPTED_INFERENCE_H_

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "inference/open_inference.grpc.pb.h"

namespace sluice::reward {

// By default an honest model "ranker" of version "1" with inputs user [-1], history [-1, -1], item [-1] of INT64 and
// the output score FP32 [-1] = 10 item + first item of the history.
class ScriptedInference : public ::inference::GRPCInferenceService::Service {
 public:
  using InferFunction = std::function<grpc::Status(grpc::ServerContext*, const ::inference::ModelInferRequest&,
                                                   ::inference::ModelInferResponse*)>;

  // Set before the server starts, or while no call is under way.
  InferFunction infer = [](grpc::ServerContext*, const ::inference::ModelInferRequest& request,
                           ::inference::ModelInferResponse* answer) { return Honest(request, answer); };
  std::function<grpc::Status(::inference::ModelMetadataResponse*)> metadata = [](auto*) { return grpc::Status::OK; };
  std::atomic<bool> server_ready{true};
  std::function<grpc::Status(const ::inference::ModelReadyRequest&, ::inference::ModelReadyResponse*)> model_ready =
      [](const auto&, auto* answer) {
        answer->set_ready(true);
        return grpc::Status::OK;
      };
  std::atomic<int> infer_calls{0};

  static std::vector<int64_t> Numbers(const ::inference::ModelInferRequest& request, int input) {
    if (request.raw_input_contents_size() == 0) {
      const auto& typed = request.inputs(input).contents().int64_contents();
      return {typed.begin(), typed.end()};
    }
    const std::string& raw = request.raw_input_contents(input);
    std::vector<int64_t> numbers(raw.size() / sizeof(int64_t));
    raw.copy(reinterpret_cast<char*>(numbers.data()), raw.size());
    return numbers;
  }

  static grpc::Status Honest(const ::inference::ModelInferRequest& request, ::inference::ModelInferResponse* answer) {
    const std::vector<int64_t> history = Numbers(request, 1), items = Numbers(request, 2);
    std::vector<float> scores;
    for (size_t i = 0; i < items.size(); ++i) {
      scores.push_back(static_cast<float>(10 * items[i] + history[i * history.size() / items.size()]));
    }
    answer->set_model_name("ranker");
    answer->set_model_version("1");
    answer->set_id(request.id());
    auto* output = answer->add_outputs();
    output->set_name("score");
    output->set_datatype("FP32");
    output->add_shape(static_cast<int64_t>(scores.size()));
    if (request.raw_input_contents_size() == 0) {
      output->mutable_contents()->mutable_fp32_contents()->Assign(scores.begin(), scores.end());
    } else {
      answer->add_raw_output_contents(scores.data(), scores.size() * sizeof(float));
    }
    return grpc::Status::OK;
  }

  grpc::Status ServerReady(grpc::ServerContext*, const ::inference::ServerReadyRequest*,
                           ::inference::ServerReadyResponse* answer) override {
    answer->set_ready(server_ready);
    return grpc::Status::OK;
  }
  grpc::Status ModelReady(grpc::ServerContext*, const ::inference::ModelReadyRequest* request,
                          ::inference::ModelReadyResponse* answer) override {
    return model_ready(*request, answer);
  }
  grpc::Status ModelMetadata(grpc::ServerContext*, const ::inference::ModelMetadataRequest*,
                             ::inference::ModelMetadataResponse* answer) override {
    answer->set_name("ranker");
    answer->add_versions("1");
    const auto add = [](auto* tensor, const char* name, const char* type, int dimensions) {
      tensor->set_name(name);
      tensor->set_datatype(type);
      for (int i = 0; i < dimensions; ++i) tensor->add_shape(-1);
    };
    add(answer->add_inputs(), "user", "INT64", 1);
    add(answer->add_inputs(), "history", "INT64", 2);
    add(answer->add_inputs(), "item", "INT64", 1);
    add(answer->add_outputs(), "score", "FP32", 1);
    return metadata(answer);
  }
  grpc::Status ModelInfer(grpc::ServerContext* context, const ::inference::ModelInferRequest* request,
                          ::inference::ModelInferResponse* answer) override {
    ++infer_calls;
    return infer(context, *request, answer);
  }
};

}  // namespace sluice::reward

#endif  // SLUICE_TESTS_TESTING_SCRIPTED_INFERENCE_H_
