"""Makes tests/data/metrics: what the original tools of few-shot evaluation answer.

    python3.11 -m venv /tmp/metrics && /tmp/metrics/bin/pip install -r tools/requirements-metrics.txt
    /tmp/metrics/bin/pip install --no-deps open_flamingo==2.0.1
    /tmp/metrics/bin/python tools/golden_metrics.py tests/data/metrics [name of one part]

The caption tokens need Java (8 or later), which pycocoevalcap starts. Captions and answers are made up here, from
lists of words and a seed; nothing is taken from a data set.
"""

import importlib.util
import json
import math
import random
import sys
from pathlib import Path

import numpy
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
from scipy.stats import bootstrap
from sklearn.metrics import ndcg_score, roc_auc_score


def original(name):
    """A module of open_flamingo's evaluation, without the rest of the package, which wants torch."""
    package = importlib.util.find_spec("open_flamingo").submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location(name, Path(package) / "eval" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PEOPLE = "man woman boy girl child person player skier surfer baby couple chef police-officer bride cyclist".split()
THINGS = (
    "dog cat horse bicycle fire-hydrant pizza sandwich umbrella laptop t-shirt skateboard bench kite clock teddy-bear "
    "vase bus train airplane boat traffic-light stop-sign parking-meter elephant giraffe zebra cup fork bowl banana"
).split()
COLOURS = "red green blue grey colourful black-and-white brown orange yellow white light-blue dark silver".split()
ACTIONS = (
    "riding holding eating watching throwing standing-next-to sitting-on looking-at cutting catching flying carrying"
).split()
PLACES = (
    "a field|the beach|a city street|the kitchen|a living room|St. Louis|Mt. Hood|the U.S. Open|Main St.|an airport|"
    "a snowy slope|the dog's yard|a children's playground|the players' bench|Washington D.C.|a 7-Eleven|the 1950's"
).split("|")
TAILS = [
    ".",
    "",
    " .",
    "!",
    "...",
    ", and it's sunny.",
    " - it isn't raining",
    "; the sky is blue.",
    " (close-up).",
    " at 10:30 a.m.",
    " on a rainy day in Sept.",
    " for $5.99.",
    " & smiling",
    " w/ a friend",
    ", 50% off!",
    " in 1998.",
    ' with a sign that says "STOP".',
    ' next to a sign that reads "No Parking 8am-6pm"',
    " and can't let go",
    " that they've found.",
    " that he'll eat",
    ", etc.",
    " vs. the L.A. Lakers",
    " in the '90s",
    " on the 2nd floor",
    " \u2013 a view from above",
    " at the caf\u00e9",
    " \u201cfor sale\u201d.",
    " that weighs 1,000 lbs.",
    " 6'2\" tall",
    " and/or a cat",
    " with Mr. and Mrs. Smith.",
    ", isn't it?",
    " who cannot swim",
    " doin' tricks",
    "  with   spaces ",
    " in a half-eaten state",
    " at www.example.com",
    " #nofilter",
    " @home",
    " :)",
    " by a No. 5 bus",
    " 1/2 full",
]

HARD = (
    "a the dog Dog's dogs' U.S. u.s U.S.A. st. St. no. No. 5 10 1,000 1.5 .5 -5 +7 1/2 2-1/2 10:30 10:30pm 3pm 5' 6'2 "
    "5'10\" '90s '99 90's 1950's isn't can't CAN'T don't won\u2019t it's it\u2019s I'm they've he'd we'll y'all "
    "cannot gonna gotta wanna lemme gimme 'tis 'twas 'em 'til 'cause 'n' rock'n'roll o'clock ma'am O'Neil D'Angelo "
    "half-eaten t-shirt x-ray black-and-white mid-air - -- --- ---- \u2013 \u2014 a-b- -a and/or w/ w/o up/down 24/7 "
    "a/b/c/d red/white-blue . .. ... .... , ; : ? ! ?! !!! a!b a?b dog.The x.y (a) (boats) [x] {y} <b> </b> < > <3 "
    "\" '' ' `` ` \u201cfor \u201d \u2018a \u2019 \u00ab \u00bb $5 $ US$5 5$ \u00a35 \u20ac5 5\u00a2 \u00a55 50% % # "
    "#1 #tag @ @me me@x.com www.a.com http://a.com/b http://a.com. a.com b.org/x/y AT&T R&B a&b & &amp; &lt; Q&A's "
    "etc. vs. Mr. Mrs. Dr. Jr. Inc. Co. Ave. a.m. p.m. e.g. Ph.D. J. J.R. Sept. Mon. approx. ft. lbs. in. oz. "
    "caf\u00e9 na\u00efve \u00bd \u00b0 5\u00b0F \u2122 \u00ae \u2022 \u2026 \u65e5\u672c \u0434\u0430 \U0001f600 "
    "m\u00b2 \u00d7 :) :-) :( ;) :D =) ^_^ :/ C++ a_b _a * ** a*b = + ~ | \\ / ^ I'ma let's 's n't 'll cats'"
).split()


def captions():
    draw = random.Random(1)
    plain = []
    for _ in range(3000):
        article = draw.choice(["A", "a", "The", "two", "Three", "An old", "One", "Several", ""])
        words = [article, draw.choice(COLOURS) if draw.random() < 0.4 else "", draw.choice(PEOPLE + THINGS)]
        words += [draw.choice(["is", "are", "", ""]), draw.choice(ACTIONS), "a", draw.choice(COLOURS + [""])]
        words += [draw.choice(THINGS), draw.choice(["in", "on", "near", "at"]), draw.choice(PLACES)]
        joined = " ".join(word.replace("-", " ") if draw.random() < 0.5 else word for word in words if word)
        plain.append(joined + draw.choice(TAILS))
    hard = []
    for _ in range(2000):
        pieces = draw.choices(HARD, k=draw.randint(2, 9))
        hard.append("".join(piece + draw.choice([" ", " ", " ", " ", "", ", "]) for piece in pieces))
    return plain, hard


def tokenised(texts):
    """One list of tokens a text, by the Java tokenizer."""
    found = PTBTokenizer().tokenize({number: [{"caption": text}] for number, text in enumerate(texts)})
    return [" ".join(found[number][0].split()) for number in range(len(texts))]


def ptb():
    plain, hard = captions()
    return {
        "plain": list(zip(plain[:1500], tokenised(plain)[:1500])),
        "hard": list(zip(hard, tokenised(hard))),
    }


def cider():
    draw = random.Random(2)
    plain, _ = captions()
    corpora = []
    for pictures, most in ((120, 5), (12, 3), (1, 2), (2, 1)):
        references, candidates = {}, {}
        for number in range(pictures):
            base = draw.choice(plain)
            references[number] = [
                " ".join(
                    w for w in (base if draw.random() < 0.6 else draw.choice(plain)).split() if draw.random() < 0.9
                )
                for _ in range(draw.randint(1, most))
            ]
            kind = draw.randrange(8)
            words = base.split()
            candidates[number] = [
                {0: "", 1: words[0], 2: base + " " + base, 3: " ".join(reversed(words))}.get(
                    kind, " ".join(w for w in words if draw.random() < 0.8)
                )
            ]
        score, examples = Cider().compute_score(references, candidates)
        corpora.append(corpus(references, candidates, score, examples))
    # From captions to a score, with Java in between.
    references = {n: draw.sample(plain, 4) for n in range(60)}
    candidates = {n: [draw.choice(references[n]).replace("red", "blue") + " today"] for n in range(60)}
    tokens = [
        {n: [{"caption": text} for text in texts] for n, texts in side.items()} for side in (references, candidates)
    ]
    tokens = [PTBTokenizer().tokenize(side) for side in tokens]
    score, examples = Cider().compute_score(*tokens)
    return {"tokens": corpora, "captions": corpus(references, candidates, score, examples)}


def corpus(references, candidates, score, examples):
    return {
        "references": [references[n] for n in range(len(references))],
        "candidates": [candidates[n][0] for n in range(len(references))],
        "score": float(score),
        "examples": [float(value) for value in examples],
    }


PIECES = (
    [" "] * 8
    + list(".,;/[]\"{}()=+\\_-><@`?!'")
    + ["\n", "\t", "\u00a0", "\u3000", "\x1c", "\u0130", "\u00c9", "\u03a3", "\u00df", "..", ". .", ", ", "-a", "a-"]
    + "a A an The the none zero one Two three ten eleven yes no red car 1 2 10 1,000 2.5 .5 5. 3,a a,3 7.a".split()
    + "dont Dont don't isnt wouldntve wouldn'tve wouldnt've youd've youdve yall'd've y'alld've y'all'dve".split()
    + "ow's'at 'ows'at 'ow'sat somebody'd somebodyd've lets let's shes she's im Im id've I'dve ill wed hell its".split()
    + "twas oclock maam whove whod've theyre thats cant couldve couldnt hes howd itll notve yall yallll y'allll".split()
)


class Draws:
    """SplitMix64, so that the test makes the same strings."""

    def __init__(self, seed):
        self.state = seed

    def below(self, most):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return (z ^ (z >> 31)) % most


def fnv(text, state):
    for byte in text.encode() + b"\0":
        state = ((state ^ byte) * 0x100000001B3) & ((1 << 64) - 1)
    return state


def vqa():
    metric = original("vqa_metric")
    judge = metric.VQAEval(None, None)

    def normalised(text):
        text = text.replace("\n", " ").replace("\t", " ").strip()
        return judge.processDigitArticle(judge.processPunctuation(text))

    draws, strings = Draws(3), []
    for _ in range(20000):
        strings.append("".join(PIECES[draws.below(len(PIECES))] for _ in range(1 + draws.below(12))))
    hashes = []
    for start in range(0, len(strings), 100):
        state = 0xCBF29CE484222325
        for text in strings[start : start + 100]:
            state = fnv(normalised(text), state)
        hashes.append(f"{state:016x}")
    words = sorted(set(judge.contractions) | set(judge.contractions.values()))
    points = ["." * 31 + "a.b.c.d", "." * 33 + "x.", "a. " * 40]
    questions = accuracies(metric)
    return {
        "pieces": PIECES,
        "seed": 3,
        "hashes_of_100": hashes,
        "pairs": [[text, normalised(text)] for text in strings[:300] + words + points],
        "questions": questions,
    }


def accuracies(metric):
    draw = random.Random(4)
    pool = ["yes", "Yes.", "no", "two", "2", "a dog", "dog", "dogs", "dont", "don't", "red, white", "red white", ""]
    annotations, results = [], []
    for number in range(200):
        some = draw.sample(pool, draw.randint(1, 4))
        answers = [{"answer": draw.choice(some), "answer_id": i + 1} for i in range(10)]
        annotations.append(
            {"question_id": number, "image_id": 0, "question_type": "", "answer_type": "", "answers": answers}
        )
        results.append({"question_id": number, "image_id": 0, "answer": draw.choice(some + pool)})
    questions = [[r["answer"], [a["answer"] for a in q["answers"]]] for q, r in zip(annotations, results)]
    truth, found = metric.VQA(), metric.VQA()
    truth.dataset, found.dataset = {"annotations": annotations}, {"annotations": results}
    truth.questions = found.questions = {"questions": annotations}
    truth.createIndex()
    found.createIndex()
    judge = metric.VQAEval(truth, found, n=12)
    judge.evaluate()
    return {
        "cases": [[*question, judge.evalQA[number] / 100] for number, question in enumerate(questions)],
        "overall": judge.accuracy["overall"] / 100,
    }


TAGGED = """
    a/DT dog/NN plays/VBZ with/IN two/CD cats/NNS | the/DT dogs/NNS are/VBP running/VBG in/IN the/DT parks/NNS |
    he/PRP plays/VBZ tennis/NN | red/JJ buses/NNS | a/DT bus/NN | glasses/NNS | glass/NN | skis/NNS | he/PRP
    skis/VBZ | the/DT man/NN is/VBZ surfing/VBG | men/NNS surfing/VBG | surfing/NN is/VBZ fun/NN | buildings/NNS
    | this/DT building/NN | United/NNP States/NNPS | the/DT Giants/NNPS won/VBD in/IN 1998/CD | New/NNP York/NNP
    | it/PRP has/VBZ wheels/NNS | children/NNS eating/VBG sandwiches/NNS | she/PRP eats/VBZ tomatoes/NNS and/CC
    potatoes/NNS | 50/CD states/NNS | black-and-white/JJ horses/NNS | knives/NNS and/CC forks/NNS | the/DT
    knife/NN | many/JJ flowers/NNS | flower/NN | to/TO keep/VB warm/JJ | for/IN boats/NNS | boat/NN | he/PRP
    boats/VBZ | bananas/NNS | babies/NNS | a/DT baby/NN | grass/NN | christmas/NN | less/JJR | yes/UH | no/DT |
    class/NN | classes/NNS | quickly/RB | leaves/NNS fall/VBP
"""

NOUNS = """
    cat dog bus glass church box dish quiz hero potato shoe toe baby key day monkey knife wife leaf wolf roof
    hive cave glove olive native man woman person child mouse louse ox axis crisis thesis basis analysis datum
    medium octopus virus status alias index matrix vertex series species fish sheep jean movie move sex cow
    zombie human database news lens gas kiss brush match fox tax buffalo photo radio piano hoof chief belief
    cliff giraffe safe tie pie lie bee sea pizza
""".split()


class OneSentence:
    """NLTK, but for the splitting of an answer into sentences, whose data is not needed for short answers."""

    def __init__(self, tagger):
        import nltk

        self.stem, self.tagger, self.words = nltk.stem, tagger, nltk.tokenize.NLTKWordTokenizer()
        self.tokenize = self

    def word_tokenize(self, text):
        return self.words.tokenize(text)

    def pos_tag(self, words):
        return self.tagger.tag(words)


def verbs_only(folder):
    """A folder of WordNet as NLTK has it, with some verbs, and NLTK's own rules over it (`_morphy`)."""
    from nltk.corpus.reader.wordnet import VERB, WordNetCorpusReader

    rules = WordNetCorpusReader.__new__(WordNetCorpusReader)
    lemmas = [line.split()[0] for line in (folder / "index.verb").read_text().splitlines() if line[0] != " "]
    exceptions = [line.split() for line in (folder / "verb.exc").read_text().splitlines()]
    rules._lemma_pos_offset_map = {lemma: {VERB: [0]} for lemma in lemmas}
    rules._exception_map = {VERB: {form: rest for form, *rest in exceptions}}
    return rules


VERBS = """
    bat be ride ring run sing surf ski skate skateboard swim eat make bake cut catch fly play read drive park
    smile smoke sit stand lie tie dye die see ski feed walk wait sleep jump hop hope bring string swing bathe
    box brush water snow snowboard cook clean dance dive fish ice fall call dress kiss race rac hike hik bik
    bike plan plane star stare cross
""".split()

EXCEPTIONS = """
    being be|running run|swimming swim|sitting sit|cutting cut|lying lie|dying die|tying tie|hopping hop|planning plan|
    batting bat|skiing ski|unknowing unknow|icing ice
"""


def okvqa():
    """The tagger is NLTK's, trained here on a few sentences: what is tested is the arithmetic. WordNet: a few verbs."""
    import nltk.tag.perceptron as perceptron

    random.seed(8)
    sentences = [[tuple(pair.split("/")) for pair in line.split()] for line in TAGGED.split("|")]
    tagger = perceptron.PerceptronTagger(load=False)
    tagger.train(sentences * 3, nr_iter=6)
    tagger.tagdict |= {"the": "DT", "2": "CD"}
    root = Path(sys.argv[1]) / "nltk"
    taggers, wordnet = root / "taggers/averaged_perceptron_tagger_eng", root / "corpora/wordnet"
    taggers.mkdir(parents=True, exist_ok=True)
    wordnet.mkdir(parents=True, exist_ok=True)
    parts = {"weights": tagger.model.weights, "tagdict": tagger.tagdict, "classes": sorted(tagger.classes)}
    for part, value in parts.items():
        if part == "weights":
            value = {name: of for name, of in sorted(value.items()) if any(of.values())}
        text = json.dumps(value, separators=(",", ":"))
        (taggers / f"averaged_perceptron_tagger_eng.{part}.json").write_text(text + "\n")
    lines = ["  1 Made for tests."] + [f"{verb} v 1 0 1 0 00000000  " for verb in sorted(VERBS)]
    (wordnet / "index.verb").write_text("\n".join(lines) + "\n")
    listed = sorted(pair.strip() for pair in EXCEPTIONS.split("|"))
    (wordnet / "verb.exc").write_text("\n".join(listed) + "\n")

    module = original("ok_vqa_utils")
    module.nltk = OneSentence(tagger)
    rules = verbs_only(wordnet)
    stemmer = module.OKVQAStemmer()
    stemmer._wordnet_lemmatizer._morphy = rules._morphy

    import inflection

    draw = random.Random(9)
    plurals = [inflection.pluralize(noun) for noun in NOUNS]
    forms = NOUNS + plurals + [noun + "s" for noun in NOUNS] + [noun + "es" for noun in NOUNS]
    forms += [
        "Cats",
        "BOXES",
        "goldfish",
        "gold-fish",
        "calves",
        "halves",
        "nerves",
        "s",
        "es",
        "ies",
        "ves",
        "ss",
        "oxens",
    ]
    tagged = [word for sentence in sentences for word, _ in sentence]
    ings = (
        [form.split()[0] for form in listed] + [verb + "ing" for verb in VERBS] + [verb[:-1] + "ing" for verb in VERBS]
    )
    marks = [
        "dog's",
        "can't",
        "don't",
        "cannot",
        "gonna",
        "wanna",
        "it's",
        "they've",
        "kids'",
        "o'clock",
        "u.s.",
        "10:30",
        "5'10",
        "50%",
        "$5",
        "1998",
        "2",
        "t-shirts",
        "'tis",
        "'s",
        '"dogs"',
        "(cats)",
        "dogs.",
        "cats!",
        "a,b",
        "dogs:",
        "--",
        "dogs...",
        "#5",
        "a/b",
        "more'n",
        "I'LL",
        "isN'T",
        "don't've",
        "'cats'",
        "''",
        "``x",
        "dogs;cats",
        "a&b",
    ]
    pool = tagged + ings + marks + list(module._MANUAL_MATCHES)
    texts = list(module._MANUAL_MATCHES) + ings + marks + tagged
    texts += [" ".join(draw.choices(pool, k=draw.randint(2, 5))) for _ in range(1200)]
    return {
        "stems": [[text, stemmer.stem(text)] for text in texts],
        "exceptions": list(module._MANUAL_MATCHES),
        "singulars": [[form, inflection.singularize(form)] for form in dict.fromkeys(forms)],
    }


def answers():
    draw = random.Random(5)
    coco_metric, vqa_metric = original("coco_metric"), original("vqa_metric")
    pieces = ["yes", " no", ", ", ",", " ", "\n", "Question", "Answer", "Short", "Output", "output", "short", '"', ":"]
    pieces += ["Question:what", "Short answer:", "a dog", "Outputs", "Que", "caf\u00e9", "."]
    texts = ["", *pieces] + ["".join(draw.choices(pieces, k=draw.randint(1, 9))) for _ in range(300)]
    return {
        # The quotation marks are removed where the function is called, in evaluate.py.
        "captions": [[text, coco_metric.postprocess_captioning_generation(text).replace('"', "")] for text in texts],
        "short_answers": [[text, vqa_metric.postprocess_vqa_generation(text)] for text in texts],
    }


def numbers():
    draw = numpy.random.default_rng(6)
    areas = []
    for count in (2, 3, 10, 100, 1000):
        for steps in (2, 5, 1000000):
            labels = draw.integers(0, 2, count)
            labels[:2] = [0, 1]
            scores = draw.integers(-steps, steps, count) / steps + 0.3 * labels * (draw.random() < 0.5)
            scores = numpy.round(scores, 6)
            area = float(roc_auc_score(labels, scores))
            areas.append({"scores": scores.tolist(), "positive": labels.astype(bool).tolist(), "area": area})
    gains = []
    for _ in range(40):
        relevance = draw.choice([0, 0, 0, 0, 0.2, 0.4, 0.5, 1.0], 100)
        relevance[draw.integers(0, 100)] = 0.6
        scores = draw.permutation(100) / 7
        # VisDial's rule is this one with as many ranks as there are relevant candidates.
        most = int((relevance > 0).sum())
        gain = float(ndcg_score(relevance[None], scores[None], k=most))
        gains.append({"relevance": relevance.tolist(), "scores": numpy.round(scores, 9).tolist(), "ndcg": gain})
    intervals = []
    for count, confidence in ((50, 0.95), (400, 0.95), (400, 0.8)):
        values = numpy.round(draw.choice([0, 0.3, 0.6, 1.0], count), 3)
        found = bootstrap(
            (values,),
            numpy.mean,
            confidence_level=confidence,
            n_resamples=100000,
            method="percentile",
            batch=1000,
            rng=7,
        ).confidence_interval
        intervals.append(
            {
                "values": values.tolist(),
                "confidence": confidence,
                "low": float(found.low),
                "high": float(found.high),
                "deviation": float(values.std() / math.sqrt(count)),
            }
        )
    return {"roc_auc": areas, "ndcg": gains, "bootstrap": intervals}


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for part in (ptb, cider, vqa, okvqa, answers, numbers):
        if len(sys.argv) < 3 or sys.argv[2] == part.__name__:
            text = json.dumps(part(), ensure_ascii=False, separators=(",", ":"))
            (folder / f"{part.__name__}.json").write_text(text + "\n")
            print(f"{part.__name__}.json: {len(text)} bytes")


main()
