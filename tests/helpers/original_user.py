"""A script as users of the original have them. It must run as it stands.

Only `import tensorflow.compat.v1` and `disable_v2_behavior` are not of 2019; TensorFlow's migration
guide asks for them.
"""

import json
import os
import sys

import numpy as np
import tensorflow.compat.v1 as tf

import encoder
import model
import sample

tf.disable_v2_behavior()

models_dir, model_name = sys.argv[1:]
enc = encoder.get_encoder(model_name, models_dir)
hparams = model.default_hparams()
with open(os.path.join(models_dir, model_name, "hparams.json")) as f:
    hparams.override_from_dict(json.load(f))

for batch_size in (1, 16):  # XLA compiles the loop of one, and on a CPU not that of many
    with tf.Session(graph=tf.Graph()) as sess:
        context = tf.placeholder(tf.int32, [batch_size, None])
        np.random.seed(0)
        tf.set_random_seed(0)
        output = sample.sample_sequence(
            hparams=hparams,
            length=20,
            context=context,
            batch_size=batch_size,
            temperature=0.9,
            top_k=40,
            top_p=0.95,
        )
        lm_output = model.model(hparams=hparams, X=context, past=None, reuse=tf.AUTO_REUSE)

        saver = tf.train.Saver()
        ckpt = tf.train.latest_checkpoint(os.path.join(models_dir, model_name))
        saver.restore(sess, ckpt)

        for text in ["KING RICHARD", "What news, my lord? I have been waiting here all night."]:
            context_tokens = enc.encode(text)
            out = sess.run(output, feed_dict={context: [context_tokens for _ in range(batch_size)]})
            assert out.shape == (batch_size, len(context_tokens) + 20), out.shape
            logits = sess.run(lm_output["logits"], feed_dict={context: out})
            assert logits.shape == (*out.shape, hparams.n_vocab), logits.shape
            for row in out[:, len(context_tokens) :]:
                print("=" * 40)
                print(enc.decode(row))
