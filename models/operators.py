"""The operators that a model may use: those whose results have a size that follows from the number of rows alone.

Then a batch of the largest size that was tried says what any batch will take, whatever stands in its events. An
operator that ONNX has and that is not here is refused by name; whether it may be added is decided by that rule, and
by whether it gives the same result each time.
"""

_ELEMENTS = """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh Cast CastLike Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp
    Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean
    Min Mish Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt
    Sub Sum Tan Tanh ThresholdedRelu Where Xor
"""
_ROWS = """
    ArgMax ArgMin BatchNormalization CumSum Gemm GroupNormalization Hardmax InstanceNormalization
    LayerNormalization LogSoftmax LpNormalization MatMul MeanVarianceNormalization ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare RMSNormalization Softmax
"""
_SHAPES = """
    Compress Concat Constant Flatten Gather GatherElements GatherND Reshape Shape Size Slice Split Squeeze TopK
    Transpose Trilu Unsqueeze
"""
_ML = """
    ArrayFeatureExtractor Binarizer CategoryMapper FeatureVectorizer Imputer LabelEncoder LinearClassifier
    LinearRegressor Normalizer OneHotEncoder Scaler SVMClassifier SVMRegressor TreeEnsembleClassifier
    TreeEnsembleRegressor
"""

# Their result is as large as some of their inputs say. The inputs, by position, must not come from the events.
SIZED_BY: dict[tuple[str, str], tuple[int, ...]] = {
    ("", "ConstantOfShape"): (0,),
    ("", "Expand"): (1,),
    ("", "OneHot"): (1,),
    ("", "Pad"): (1,),
    ("", "Range"): (0, 1, 2),
    ("", "Tile"): (1,),
}
# What their result says of an input is its shape, and never its values.
SHAPES_ONLY = {("", "Shape"), ("", "Size")}

ALLOWED = (
    {("", name) for name in (_ELEMENTS + _ROWS + _SHAPES).split()}
    | {("ai.onnx.ml", name) for name in _ML.split()}
    | SIZED_BY.keys()
)
TREES = {("ai.onnx.ml", "TreeEnsembleClassifier"), ("ai.onnx.ml", "TreeEnsembleRegressor")}
