"""Readers for estimators of scikit-learn, and a torch network as a step of its pipelines.

`linear_models`, `trees` and `closed_form` are the model readers. The other modules hold parts of them: the spec of a
linear model (`linear_spec`) and how each estimator fills it (`generalised_linear`, `support_vectors`,
`cross_validated`); the model in closed form (`closed_form_model`), its spec (`closed_form_spec`) and one module per
family; the steps before the estimator in a pipeline (`preprocessing`), and a network as such a step
(`frozen_network`).
"""
