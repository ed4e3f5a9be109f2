"""What to do with each template, in English and in Japanese: the page translates labels, but not what is written on a canvas."""

from __future__ import annotations

WAN_MODEL, WAN_TEXT, WAN_VAE = "wan2.1_t2v_1.3B_fp16.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "wan_2.1_vae.safetensors"

QUICK_START = (
    """# Who, and how it moves

**Press Run.** Nothing is downloaded. In two to three minutes on a CPU this graph

1. takes photos of a figure and clips of a motion that the small embedded model has never seen (**Data**),
2. trains both together (**Train**; the trainer shows loss curves and samples while it works),
3. samples one prompt four times with one seed: the plain model, the identity alone, the motion alone, both. It scores the four, saves
   the fused video, and shows how the two sides were weighed (**Sample and compare**).

## Try
- Another figure, motion or seed in **Example Data**.
- The strengths in **Sample four ways and compare**: training is kept, only sampling runs again.
- Stop while it trains and press Run again: it goes on at the very step.
- The button at the corner of **Training Settings** and of **Sample four ways and compare** shows what is inside.

## Swap in your own
Template 2 trains on your photos and clips, with Wan. Template 4 blends two LoRAs that you have.
""",
    """# 誰が、どう動くか

**「実行する」を押してください。** ダウンロードはありません。CPUで2〜3分です。

1. 小さな同梱モデルが見たことのないキャラクターの写真と、モーションの動画を使います（**Data**）。
2. 両方を一緒に学習します（**Train**。学習中は損失のグラフと生成例が表示されます）。
3. 1つのプロンプトとシードで4回生成します: 元のモデル、被写体だけ、モーションだけ、両方。4本を採点し、融合した動画を保存し、
   両側の重みを図示します（**Sample and compare**）。

## 試してみる
- **サンプルデータ**でキャラクター、モーション、シードを変える。
- **Sample four ways and compare** の強度を変える: 学習結果はそのままで、生成だけがやり直されます。
- 学習中に止めて、もう一度実行する: 止めたステップの続きから始まります。
- **Training Settings** と **Sample four ways and compare** の隅のボタンで、中のノードが見えます。

## 自分の素材で
テンプレート2はWanで自分の写真と動画から学習し、テンプレート4は手持ちの2つのLoRAを混ぜます。
""",
)
TRAIN = (
    f"""# Train a pair on Wan 2.1

1. Put 3 to 20 photos of one subject in `input/my_identity`, each with a caption in a `.txt` of the same name. Name the
   subject by a trigger word: *a photo of sks dog*.
2. Put 3 to 20 clips of one motion, by other subjects, in `input/my_motion`, captioned too: *a cat is dancing*.
3. Choose both folders in **Data**, write a prompt that joins them, press Run.

**Save Pair** writes `models/dualreal/my_pair_00001_.safetensors`; template 3 samples with it. Say in *consent* who agreed to
the use of the pictures: the note stays in the file.

Runs are kept in `output/dualreal/runs`. Stopped, the same graph goes on where it was; with other settings it starts anew.

## Models
- `diffusion_models/{WAN_MODEL}`
- `text_encoders/{WAN_TEXT}`
- `vae/{WAN_VAE}`

## Swap in
Any other video model in the three loaders; then set width, height, frames and fps of the datasets to what it was made for
(LTX-Video: 24 fps, sides by 32; HunyuanVideo: 24 fps; CogVideoX: 8 fps). Short of memory: smaller sides, fewer frames.
""",
    f"""# Wan 2.1でペアを学習する

1. 被写体の写真3〜20枚を `input/my_identity` に入れ、それぞれに同じ名前の `.txt` のキャプションを付けます。
   被写体はトリガーワードで呼びます: *a photo of sks dog*
2. 別の被写体が同じモーションをする動画3〜20本を `input/my_motion` に入れ、これにもキャプションを付けます: *a cat is dancing*
3. **Data** で両方のフォルダを選び、両者を合わせたプロンプトを書いて、実行します。

**ペアを保存**は `models/dualreal/my_pair_00001_.safetensors` を書き、テンプレート3がそれを使います。
写真の使用に誰が同意したかを *consent* に書くと、ファイルに残ります。

学習の途中経過は `output/dualreal/runs` に残ります。止めても、同じグラフなら続きから、設定を変えれば最初から始まります。

## モデル
- `diffusion_models/{WAN_MODEL}`
- `text_encoders/{WAN_TEXT}`
- `vae/{WAN_VAE}`

## 差し替え
3つのローダーで他の動画モデルを選び、データセットの幅、高さ、フレーム数、fpsをそのモデルに合わせます（LTX-Video: 24 fps、辺は32の倍数。
HunyuanVideo: 24 fps。CogVideoX: 8 fps）。
メモリが足りないときは、辺を小さく、フレーム数を少なくします。
""",
)
APPLY = (
    """# Sample with a trained pair

1. Train a pair with template 2, or put a file into `models/dualreal`, and choose it in **Load Pair**.
2. Name the subject in the prompt as its captions did (*sks dog*), and describe the motion as the clips' captions did.

**Apply StageBlender** weighs identity and motion at every step and depth, as the pair has learned. Too little likeness: raise
identity_strength; too little movement: raise motion_strength. **Blend Map** shows the weights that were used.

## Swap in
The model the pair was trained on, in the three loaders; LoRAs of other kinds (style, fast sampling) go between Load
Diffusion Model and Apply StageBlender. CogVideoX is sampled with *SamplerCustom* and *VOIDSampler*, not with KSampler.
""",
    """# 学習したペアで生成する

1. テンプレート2でペアを学習するか、ファイルを `models/dualreal` に入れ、**ペアを読み込む**で選びます。
2. プロンプトでは、被写体をキャプションと同じ言葉（*sks dog*）で呼び、モーションも動画のキャプションと同じように書きます。

**StageBlenderを適用**は、学習したとおりに、ステップと深さごとに被写体とモーションの重みを決めます。
似ていなければ identity_strength を、動きが足りなければ motion_strength を上げます。
**ブレンドマップ**は、使われた重みを示します。

## 差し替え
3つのローダーは、ペアを学習したモデルに。ほかの種類のLoRA（画風、
高速化）は「拡散モデルを読み込む」と「StageBlenderを適用」の間に置きます。
CogVideoXはKSamplerではなく *SamplerCustom* と *VOIDSampler* で生成します。
""",
)
TWO_LORAS = (
    """# Two LoRAs that know nothing of each other

1. Put a LoRA of a subject and a LoRA of a motion, both for the loaded model, into `models/loras`, and choose them.
2. Write a prompt with the trigger words of both.

Stacked at full strength, two LoRAs fight. **Schedule Blend** shares out each step instead: *movement first* lets the motion lead
while the picture takes shape and the identity while details are drawn. Choose *curves* to draw the shares yourself: left to
right over denoising (stage) or over the model's blocks (depth), up means identity. The page shows curves with *Nodes 2.0* on.

## Swap in
- **Load Pair** instead of one LoRA: the identity of one training with the motion of another.
- **Fixed Blend** instead of Schedule Blend: one share throughout.
- Any video model in the three loaders, with LoRAs made for it.
""",
)
BATCH = (
    """# Many identities x many motions

This graph trains and samples one pair from two folders below `input`. It runs from here, but it is made to be queued:

    python workflows/api/batch.py workflows/api/5_batch.json jobs.csv --server http://127.0.0.1:8188

with a `jobs.csv` such as

    identity,motion,prompt
    dogs/rex,dance,a photo of sks dog dancing
    dogs/rex,jump,a photo of sks dog jumping

It follows each job, collects the videos in a folder and writes `results.json`. A job with a mistake is reported and left out.

## Swap in
Your model in place of **Load Embedded Model**, its sizes in both datasets. Then *Export (API)* and give that file to batch.py: it
finds *Load Image-Text* or *Load Photos*, *Load Video-Text* or *Load Clips*, the *Prompt*, the trainer and the savers by kind and title.
""",
    """# 多数の被写体 x 多数のモーション

このグラフは `input` の中の2つのフォルダからペアを1つ学習し、生成します。ここからも実行できますが、まとめて実行するためのものです。

    python workflows/api/batch.py workflows/api/5_batch.json jobs.csv --server http://127.0.0.1:8188

`jobs.csv` の例:

    identity,motion,prompt
    dogs/rex,dance,a photo of sks dog dancing
    dogs/rex,jump,a photo of sks dog jumping

順に実行し、動画を1つのフォルダに集め、`results.json` を書きます。誤りのある行は報告し、飛ばします。

## 差し替え
**同梱モデルを読み込む**を自分のモデルに替え、両方のデータセットの大きさを合わせます。
それから *Export (API)* で書き出したファイルを batch.py に渡します。
batch.py は、写真と動画のローダー、*Prompt*、学習、保存のノードを、種類と題名で見つけます。
""",
)
