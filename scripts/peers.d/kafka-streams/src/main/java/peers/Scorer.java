package peers;

import ai.onnxruntime.OrtException;
import org.apache.kafka.streams.errors.StreamsException;

/** Puts the model's probability into results; leaves them as they are without a model. */
final class Scorer {

  private final Model model;

  Scorer(String path) {
    try {
      model = path == null ? null : new Model(path);
    } catch (OrtException error) {
      throw new StreamsException(error);
    }
  }

  Result scored(Result result, double amount) {
    if (model != null) {
      try {
        result.probability = model.score(amount, result.count_1h, result.sum_1h);
      } catch (OrtException error) {
        throw new StreamsException(error);
      }
    }
    return result;
  }
}
