"""Nets as scikit-learn's estimators: in pipelines, grid searches and cross-validation.

::

    from fastconv.sklearn import ConvClassifier

    net = make_pipeline(MinMaxScaler(), ConvClassifier("mnist-small", image_shape=(8, 8), random_state=0))
    cross_val_score(net, *load_digits(return_X_y=True))
    GridSearchCV(net, {"convclassifier__optimizer__lr": [1e-3, 3e-3]}, n_jobs=2)
"""

from fastconv.sklearn.estimators import ConvClassifier, ConvRegressor

__all__ = ["ConvClassifier", "ConvRegressor"]
