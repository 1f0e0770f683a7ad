"""A script that followed TensorFlow's migration guide: one line turns the 2.x behaviour off."""

import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()

import model
import sample

hparams = model.default_hparams()
hparams.override_from_dict({"n_vocab": 60, "n_ctx": 40, "n_embd": 8, "n_head": 2, "n_layer": 1})
for batch_size, mixed in [(16, True), (None, False)]:  # by TensorFlow's operations, and by XLA
    with tf.Session(graph=tf.Graph()) as sess:
        context = tf.placeholder(tf.int32, [batch_size, None])
        lm_output = model.model(hparams=hparams, X=context, reuse=tf.AUTO_REUSE)
        k = tf.placeholder(tf.int32, [])
        settings = {"top_k": k, "top_p": 0.9, "temperature": 0.7} if mixed else {"top_k": 40}
        output = sample.sample_sequence(
            hparams=hparams, length=8, context=context, batch_size=batch_size, **settings
        )
        sess.run(tf.global_variables_initializer())
        rows = [[1, 2, 3]] * (batch_size or 2)
        out = sess.run(output, feed_dict={context: rows, k: 5})
        assert out.shape == (len(rows), 11), out.shape
        assert sess.run(lm_output["logits"], {context: rows}).shape == (len(rows), 3, 60)
print("done")
