"""Function words, which a sentence rarely ends with.

They are the articles, pronouns, prepositions, conjunctions, auxiliaries and related adverbs that
English grammars list, put together for this repository. The paper does not name its list (Radford
et al., 2019, section 3.3).
"""

_WORDS = """
a an the this that these those some any no every each either neither both all such
i me my mine myself you your yours yourself yourselves he him his himself she her hers herself
it its itself we us our ours ourselves they them their theirs themselves one ones
who whom whose which what whoever whatever whichever
someone somebody something anyone anybody anything everyone everybody everything nobody nothing
of in to for with on at by from about into over after before under between against through
during without within along across behind beyond below above near among around upon toward
towards until till since off out up down onto beside besides despite except per via like unlike
and or but nor so yet if because although though unless while whereas whether than as when
where why how once
be am is are was were been being have has had having do does did doing done
can could may might must shall should will would ought need cannot
don't doesn't didn't isn't aren't wasn't weren't haven't hasn't hadn't won't wouldn't can't
couldn't shouldn't
not only just very too also then there here now again ever never always often even still
already almost quite rather really more most less least much many few own other another same
"""
STOP_WORDS = frozenset(_WORDS.split())
