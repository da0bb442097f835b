"""Public corpora of texts: their licences, where people get them, and the checksums of the copies that are known."""

from __future__ import annotations

from quickstudy.data.public import PublicData, PublicFile

_CLINC = "https://raw.githubusercontent.com/clinc/oos-eval/master/data"
_POLYAI = "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/master/banking_data"
_FEWREL = "https://raw.githubusercontent.com/thunlp/FewRel/master/data"


def _known(**files: str) -> dict[str, PublicFile]:
    """JSON Lines made of the published files and packed with gzip, with the SHA-256 of these; none can be fetched."""
    return {f"{name}.jsonl": PublicFile("", f"sha256:{known}") for name, known in files.items()}


TEXTS: dict[str, PublicData] = {
    "clinc150": PublicData(
        summary="150 intents of ten domains, with texts of none",
        licence="CC BY 3.0 (https://github.com/clinc/oos-eval)",
        source="Larson et al. 2019, An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction",
        files={
            "data_full.json": PublicFile(
                f"{_CLINC}/data_full.json",
                "sha256:36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0",
            ),
            "domains.json": PublicFile(
                f"{_CLINC}/domains.json",
                "sha256:b947b579d3b8e74b06f93b01083d8efaff2888b43a3e362533bd88a6e1211b3a",
            ),
        },
        page="https://github.com/clinc/oos-eval",
        layout="data_full.json and domains.json, as published",
    ),
    "banking77": PublicData(
        summary="77 intents of one bank",
        licence="CC BY 4.0 (https://github.com/PolyAI-LDN/task-specific-datasets)",
        source="Casanueva et al. 2020, Efficient Intent Detection with Dual Sentence Encoders",
        files={
            "train.csv": PublicFile(
                f"{_POLYAI}/train.csv",
                "sha256:b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
            ),
            "test.csv": PublicFile(
                f"{_POLYAI}/test.csv",
                "sha256:d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
            ),
        },
        page="https://github.com/PolyAI-LDN/task-specific-datasets",
        layout="train.csv and test.csv with the columns text and category, as published",
    ),
    "snips": PublicData(
        summary="seven intents of a voice assistant",
        licence="CC0 1.0, as its authors said; unconfirmed (https://github.com/snipsco/nlu-benchmark)",
        source="Coucke et al. 2018, Snips Voice Platform",
        files=_known(
            test="0361ba1994fe9c24282153b92805e068deca868f585b6030d9432eb212a7c1d8",
            train="64619bdc2cdbcf30cc84e8c7be54f3647a1c155b9d5fba42889e2a281de2d66b",
            valid="45de4f9aaa63e6ad351a21b8afd86b08ec68a04046d659e9031ab0ed57238389",
        ),
        page="https://github.com/snipsco/nlu-benchmark",
        layout="train.jsonl, valid.jsonl and test.jsonl (or .jsonl.gz) with text and intent on each line",
    ),
    "huffpost": PublicData(
        summary="41 topics of headlines",
        licence=(
            "CC BY 4.0 as stated by who collected it; the headlines are HuffPost's "
            "(https://www.kaggle.com/datasets/rmisra/news-category-dataset)"
        ),
        source=(
            "Misra 2018, News Category Dataset; splits of Bao et al. 2020, Few-shot Text Classification with "
            "Distributional Signatures"
        ),
        files=_known(huffpost="727c72ae1c49bfe1a95798890c510738dbdddb13a56dcde2f0e55e93a7b9eddc"),
        page="https://github.com/YujiaBao/Distributional-Signatures",
        layout="huffpost.jsonl (or .jsonl.gz) with text, label_name and split on each line",
    ),
    "reuters": PublicData(
        summary="31 topics of news stories",
        licence=(
            "free for research only; © Reuters "
            "(http://www.daviddlewis.com/resources/testcollections/reuters21578/)"
        ),
        source=(
            "Lewis 1997, Reuters-21578; splits of Bao et al. 2020, Few-shot Text Classification with "
            "Distributional Signatures"
        ),
        files=_known(reuters="bad3d2eaabd99caf1b677dfde8f23da2ab04ce30578ee40e3201fa913e63af69"),
        page="https://github.com/YujiaBao/Distributional-Signatures",
        layout="reuters.jsonl (or .jsonl.gz) with text, label_name and split on each line",
        restricted=True,
    ),
    "trec": PublicData(
        summary="50 kinds of questions",
        licence="none stated; used for research (https://cogcomp.seas.upenn.edu/Data/QA/QC/)",
        source="Li & Roth 2002, Learning Question Classifiers",
        files=_known(
            test="92d7467a7993782a37edc8891b25e97e29e85bf42e934a927ebe2a58b27ec6a6",
            train="02bc48275d2ed15c5715f1743c9e5af8671168e9d6279f9600555f78ffab7a76",
        ),
        page="https://cogcomp.seas.upenn.edu/Data/QA/QC/",
        layout="train.jsonl and test.jsonl (or .jsonl.gz) with text, coarse and fine (COARSE:fine) on each line",
        restricted=True,
    ),
    "ag_news": PublicData(
        summary="four topics of news",
        licence="non-commercial use only (http://groups.di.unipi.it/~gulli/AG_corpus_of_news_articles.html)",
        source="Zhang et al. 2015, Character-level Convolutional Networks for Text Classification",
        files=_known(test="525def63d04206fea886abe95614a2051f305f09e74a3cbd1fe06267eb5f9ab0"),
        page="http://groups.di.unipi.it/~gulli/AG_corpus_of_news_articles.html",
        layout=(
            "test.jsonl and perhaps train.jsonl (or .jsonl.gz) with title, description and label_name on each "
            "line"
        ),
        restricted=True,
    ),
    "fewrel": PublicData(
        summary="relations between two things that a sentence names",
        licence=(
            "MIT for the collection, CC BY-SA for sentences of Wikipedia; those of val_nyt are not free, © The "
            "New York Times (https://github.com/thunlp/FewRel)"
        ),
        source="Han et al. 2018, FewRel; Gao et al. 2019, FewRel 2.0",
        files={
            "pid2name.json": PublicFile(
                f"{_FEWREL}/pid2name.json",
                "sha256:eeedd25512a8e4c2bc06b78009836d27de81807bcba6ed929debd5cd713c07ea",
            ),
            "val_wiki.json": PublicFile(
                f"{_FEWREL}/val_wiki.json",
                "sha256:76bb44c2485b6faed358a3ce040eadafcc8a8835245cd7e6afc1bef672d4a0bf",
                ("sha256:03550a24be998b309f450b22877b8a35c8930e18efd0e9c6dc212fce15773efc",),
            ),
            "val_nyt.json": PublicFile(
                f"{_FEWREL}/val_nyt.json",
                "sha256:b519adc61a2bab0f05178e33a3cd8f284338b635629493e9e09616ba81bb428e",
                ("sha256:4747f69a46a32194c1e9d4284cd9b74176c7765ca90625f9ee592ffcf6867bfa",),
            ),
            "val_semeval.json": PublicFile(
                f"{_FEWREL}/val_semeval.json",
                "sha256:fd79cf35481f6596c23b92cd3ded3265481f3027a4b78d99921104f8fe632eb5",
                ("sha256:5603f4e5691792cdb68c6e5fb868efe1784642cdeb53811ef2a524624d7363da",),
            ),
        },
        page="https://github.com/thunlp/FewRel",
        layout=(
            "val_wiki.json, for the targets nyt and semeval val_nyt.json or val_semeval.json, perhaps "
            "train_wiki.json (or .json.gz), and pid2name.json, as published"
        ),
    ),
    "fdu_mtl": PublicData(
        summary="reviews of products and films, good or bad, by domain",
        licence="none stated; reviews of Amazon, IMDB and Rotten Tomatoes, for research",
        source="Liu et al. 2017, Adversarial Multi-task Learning for Text Classification",
        files=_known(
            MR="e6419fffd58019ebcdb265f0cf5214775c4788615bd0f43b3d76d1f91b1a8815",
            apparel="27653ef3b4e6394df2a7ce6dc5a80fe435afcb77bf94e9fbe4a888fb81e05224",
            books="1e677460bdfc5b7bb3daac00c77c5a26695a40921154370f6359fe4c2b100997",
            dvd="0697c68b359b2e13d02a6ef4286bfbb87e4212e5afcda37fdbb923d984b8259d",
            electronics="e16ee3847fc9461ebacc1fc1f75614996ba44089de4617378722a545c676b27f",
            health_personal_care="18ed2c6fb91207cbee41bd29deb1ce9dcc5da0b6710b6ee6cac41e4dc2cead52",
            kitchen_housewares="737e9305438dba74b1343e12cfdb647734ed591bb2ed105d185556a8b02abfd5",
            magazines="76e6d78999667381ee9123c88777b35a3c98e452eb9d1be09c28e14f66194b3e",
            music="957a0a02d3d34ad9048876b3d6cced92f38d09b508e8dd14a65967f5e1c9a41f",
            software="fe515d0d62888e28b96702d6d608880a31a4bf707a9ed4c08558d805cfcf69f4",
            sports_outdoors="d8302e7c1e13c3ef0dfef5230d9418d592f74e998efb5f1e4d1d9510bfd9fafa",
            toys_games="4ba36164349330711ed9b6899b3a77d842f9e44aa4f91d81e8b8eca0e1d763ee",
            video="75f9f206843baa8c23de621b51d7187bc11ad07c7c4946731f018da076370172",
        ),
        page="https://github.com/ccsasuke/man",
        layout=(
            "a file DOMAIN.jsonl (or .jsonl.gz) for each domain, with split (train or test), label (0 or 1) and "
            "text on each line"
        ),
        restricted=True,
    ),
    "nlupp": PublicData(
        summary="48 intents of sentences to a bank, several in most of them",
        licence="CC BY 4.0 (https://github.com/PolyAI-LDN/task-specific-datasets)",
        source=(
            "Casanueva et al. 2022, NLU++: A Multi-Label, Slot-Rich, Generalisable Dataset for Natural Language "
            "Understanding in Task-Oriented Dialogue"
        ),
        files={
            **_known(banking="4eb79da6d1f0ab6ac537bcb921ce71c20766d759fe93e359bb645ccfe9830a34"),
            "ontology.json": PublicFile(
                "", "sha256:58736607898d17f73e8afa4fa41ca455670756398f3fc91751c31b62327e38c5"
            ),
        },
        page="https://github.com/PolyAI-LDN/task-specific-datasets/tree/master/nlupp/data/banking",
        layout=(
            "banking.jsonl (or .jsonl.gz) with text, fold and perhaps a list of intents on each line, or the published "
            "fold0.json to fold19.json; and the published ontology.json"
        ),
    ),
    "leopard": PublicData(
        summary="classification tasks of many kinds with fixed support sets",
        licence="none stated; assembled from public sets, for research (https://github.com/iesl/leopard)",
        source="Bansal et al. 2020, Learning to Few-Shot Learn Across Diverse Natural Language Classification Tasks",
        files=_known(
            disaster="cd33b4294e615afb80fd5aa72b587cdd328a1b3719c2c4900addac7ecbd3b4f9",
            political_audience="f604df48cbae8a81b236c2a8a664ef75ea997380bf5f232fd97a0c3b5ca576ac",
            rating_books="0c977e7e0ca93ce8542b0898967acd31ee3c82b2af7104834f329be0d1301383",
            restaurant="c3cae0f8178617001538d80387b9418b75f928aef7f40da6b5f8263cf8b52b51",
            scitail="870793c55abc865fec8b11020b7efefce252ee377fb4c1d459a88a264d5c2b6f",
            sentiment_books="f914609d284d7e9c8a415f12d6790ce63a15f5c230b303363c2bcab6be818f37",
            sentiment_dvd="a82b28bf841095b05dec573b0a740ba68df4e766d3bb3b123d206b2d2fa32d86",
            sentiment_kitchen="a7fb796542dc1801eb923eda73888fce0e641d5f8c6dc6b5b7cf75877e937784",
        ),
        page="https://github.com/iesl/leopard",
        layout=(
            "a file TASK.jsonl (or .jsonl.gz) for each task, with split (eval or train_<k>shot_<i>), label, text "
            "and perhaps text2 on each line"
        ),
        restricted=True,
    ),
}
"""Of each corpus, by the name of its source."""
