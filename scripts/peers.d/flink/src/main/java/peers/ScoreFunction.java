package peers;

import ai.onnxruntime.OrtException;
import org.apache.flink.table.functions.FunctionContext;
import org.apache.flink.table.functions.ScalarFunction;

/** The model as a function of SQL, one row at a time: {@code score(amount, count, sum)}. */
public final class ScoreFunction extends ScalarFunction {

  private final String path;
  private transient Model model;

  public ScoreFunction(String path) {
    this.path = path;
  }

  @Override
  public void open(FunctionContext context) throws OrtException {
    model = new Model(path);
  }

  public Double eval(Double amount, Double count, Double sum) throws OrtException {
    return (double) model.score(amount, count, sum);
  }

  @Override
  public boolean isDeterministic() {
    return true;
  }

  @Override
  public void close() throws OrtException {
    model.close();
  }
}
