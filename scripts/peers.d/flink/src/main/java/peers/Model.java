package peers;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.util.Map;

/** The model as a function of amount, count and sum. Like Tidegate's session it has one thread. */
final class Model implements AutoCloseable {

  private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
  private final OrtSession session;
  private final String input;

  Model(String path) throws OrtException {
    OrtSession.SessionOptions options = new OrtSession.SessionOptions();
    options.setIntraOpNumThreads(1);
    options.setInterOpNumThreads(1);
    session = environment.createSession(path, options);
    input = session.getInputNames().iterator().next();
  }

  float score(double amount, double count, double sum) throws OrtException {
    float[][] row = {{(float) amount, (float) count, (float) sum}};
    try (OnnxTensor given = OnnxTensor.createTensor(environment, row);
        OrtSession.Result found = session.run(Map.of(input, given))) {
      return ((float[]) found.get(0).getValue())[0];
    }
  }

  @Override
  public void close() throws OrtException {
    session.close();
  }
}
