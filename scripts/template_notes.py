"""What to do with each template, in English and in Japanese: the page translates labels, but not what is written on a canvas."""

from __future__ import annotations

WAN_MODEL, WAN_TEXT, WAN_VAE = "wan2.1_t2v_1.3B_fp16.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "wan_2.1_vae.safetensors"
WAN22_MODEL, WAN22_LORA = "wan2.2_i2v_{}_noise_14B_fp8_scaled.safetensors", "wan2.2_i2v_lightx2v_4steps_lora_v1_{}_noise.safetensors"
LTX_MODEL = "ltx-2.3-22b-dev-fp8.safetensors"
LTX_TEXT = "gemma_3_12B_it_fp4_mixed.safetensors"
LTX_LORA = "ltx_2.3_22b_distilled_1.1_lora_dynamic_fro09_avg_rank_111_bf16.safetensors"
LTX_UPSCALER = "ltx-2.3-spatial-upscaler-x2-1.1.safetensors"
H3_MODEL, H3_TEXT = "minimax_h3_fl2va_pruned_int8_convrot.safetensors", "qwen3vl_32b_minimax_h3_nvfp4_awq.safetensors"
H3_VAE, H3_AUDIO = "minimax_h3_video_vae_fp16.safetensors", "minimax_h3_audio_vae_fp32.safetensors"
H3_LORA = "minimax_h3_fl2v_turbo_8step_v1.0_comfyui_bf16.safetensors"
H3_STEPS = 8

BLEND = (
    """Stacked at full strength, two LoRAs fight. The preset *movement first* lets the motion lead in noise, where the path is
settled, and the identity later, where looks are drawn. Too little movement: lower **identity_early**. Too little likeness: raise it,
or identity_strength. **Blend Map** shows the weights that were used.""",
    """2つのLoRAを最大の強度で重ねると、互いに邪魔をします。プリセット *movement first* では、
動きの道筋が決まるノイズの多い段階ではモーションが、
見た目が描かれる後の段階では被写体が強く働きます。動きが足りなければ **identity_early** を下げ、
似ていなければそれか identity_strength を上げます。
**ブレンドマップ**は、使われた重みを示します。""",
)

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

With the text encoder in *clip* the pair acts only on prompts that name it, by the words that the captions share.

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

*clip* にテキストエンコーダーをつないであるので、ペアはキャプションに共通する言葉のあるプロンプトでだけ働きます。

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
2. Name the subject in the prompt as its captions did (*sks dog*), and describe the motion as the clips' captions did:
   a side that the prompt does not name stays off.

**Apply StageBlender** weighs identity and motion at every step and depth, as the pair has learned. Too little likeness: raise
identity_strength; too little movement: raise motion_strength. **Blend Map** shows the weights that were used.

## Swap in
The model the pair was trained on, in the three loaders; LoRAs of other kinds (style, fast sampling) go between Load
Diffusion Model and Apply StageBlender. CogVideoX is sampled with *SamplerCustom* and *VOIDSampler*, not with KSampler.
""",
    """# 学習したペアで生成する

1. テンプレート2でペアを学習するか、ファイルを `models/dualreal` に入れ、**ペアを読み込む**で選びます。
2. プロンプトでは、被写体をキャプションと同じ言葉（*sks dog*）で呼び、モーションも動画のキャプションと同じように書きます。
   プロンプトが指さない側は働きません。

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
    f"""# Two LoRAs that know nothing of each other

1. Put a LoRA of a subject and a LoRA of a motion, both for the loaded model, into `models/loras`, and choose them in **Blend Two LoRAs**.
2. Write a prompt with the trigger words of both: after a run the node shows those that the files name.

{BLEND[0]}

## Models
- `diffusion_models/{WAN_MODEL}`
- `text_encoders/{WAN_TEXT}`
- `vae/{WAN_VAE}`

## Swap in
- **Blend Curves**, wired to *blend*: draw how strong each side is.
- **Load Pair** and **Apply StageBlender** instead, for a pair that you trained.
- Any video model in the three loaders, with LoRAs made for it. CogVideoX is sampled with *SamplerCustom* and *VOIDSampler*.
""",
    f"""# 互いを知らない2つのLoRA

1. 読み込むモデル用の、被写体のLoRAとモーションのLoRAを `models/loras` に入れ、**2つのLoRAをブレンド**で選びます。
2. 両方のトリガーワードを入れてプロンプトを書きます。ファイルに書かれたトリガーワードは、実行後にノードに表示されます。

{BLEND[1]}

## モデル
- `diffusion_models/{WAN_MODEL}`
- `text_encoders/{WAN_TEXT}`
- `vae/{WAN_VAE}`

## 差し替え
- **ブレンドカーブ**を *blend* につなぐ: 両側の強さを自分で描きます。
- 学習したペアには、代わりに**ペアを読み込む**と**StageBlenderを適用**を使います。
- 3つのローダーで、LoRAが作られた動画モデルを選べます。CogVideoXは *SamplerCustom* と *VOIDSampler* で生成します。
""",
)
WAN22 = (
    f"""# Wan 2.2 in 4 steps, with two LoRAs

Wan 2.2 A14B is two models: one begins (high noise), one ends (low noise). Both LoRAs act on both, with **one blend over the whole of
denoising**.

1. Choose a picture in **First frame**, and in **Blend Two LoRAs** the high-noise file of either LoRA: the low-noise one is found by its
   name. With a LoRA of Wan 2.1 set the partners (advanced) to *same file*.
2. Say in the prompt what moves, with the trigger words of both (*sks dog*).

{BLEND[0]}

The identity keeps the subject when it turns, is hidden and comes back; it cannot replace one that the picture shows otherwise.
At cfg 1, as here, the negative prompt is not used, so *negative* (advanced) changes nothing.

## Models
- `diffusion_models/{WAN22_MODEL.format("high")}`, and `low`
- `loras/{WAN22_LORA.format("high")}`, and `low`
- `text_encoders/{WAN_TEXT}`
- `vae/{WAN_VAE}`

## Swap in
- **Blend Curves**, wired to *blend*.
- **Load Pair** and **Apply StageBlender (two experts)**, for a pair that you trained.
- Without the two 4-step LoRAs: 20 steps, switch at step 10, cfg 3.5.
""",
    f"""# Wan 2.2を4ステップで、2つのLoRAとともに

Wan 2.2 A14Bは2つのモデルです。一方が始め（high noise）、もう一方が仕上げます（low noise）。2つのLoRAは両方に、
**ノイズ除去の全体を通した1つのブレンド**で働きます。

1. **First frame** で画像を選び、**2つのLoRAをブレンド**で、それぞれのLoRAのhigh noise用のファイルを選びます。
   low noise用は名前から見つけます。
   Wan 2.1のLoRAでは、partner（詳細）を *same file* にします。
2. 何がどう動くかを、両方のトリガーワード（*sks dog*）を入れてプロンプトに書きます。

{BLEND[1]}

被写体の側は、向きを変えたり隠れたりした被写体を保ちます。画像に写る別の被写体を置き換えることはできません。
ここではcfgが1なのでネガティブプロンプトは使われず、*negative*（詳細）は何も変えません。

## モデル
- `diffusion_models/{WAN22_MODEL.format("high")}` と `low`
- `loras/{WAN22_LORA.format("high")}` と `low`
- `text_encoders/{WAN_TEXT}`
- `vae/{WAN_VAE}`

## 差し替え
- **ブレンドカーブ**を *blend* につなぐ。
- 学習したペアには**ペアを読み込む**と**StageBlenderを適用（2つのエキスパート）**。
- 4ステップ用のLoRAなし: 20ステップ、10ステップで切り替え、cfg 3.5。
""",
)
LTX = (
    f"""# LTX-2.3 with two LoRAs

The picture becomes a video with sound, in two passes: a small one, and one of twice its size that adds detail.

1. Choose a picture in **First frame**, and two LoRAs made for LTX-2 in **Blend Two LoRAs**.
2. Write a prompt with the trigger words of both; describe the sound too.

{BLEND[0]}

The LoRAs shape the picture alone. For the sound as well, raise **audio_strength** (advanced). Most of the movement is settled in the
first pass: the upper **Blend Map** shows that one, the lower the second. At cfg 1, as here, *negative* (advanced) changes nothing.

## Models
- `checkpoints/{LTX_MODEL}`
- `text_encoders/{LTX_TEXT}`
- `loras/{LTX_LORA}`
- `latent_upscale_models/{LTX_UPSCALER}`

## Swap in
- **Blend Curves**, wired to *blend*.
- **Load Pair** and **Apply StageBlender**, for a pair that you trained.
- LTX-2.5: its loaders, without the distilled LoRA.
""",
    f"""# LTX-2.3を2つのLoRAとともに

画像が、音声付きの動画になります。小さな1回目と、2倍の大きさで細部を加える2回目の、2パスです。

1. **First frame** で画像を、**2つのLoRAをブレンド**で、LTX-2用の2つのLoRAを選びます。
2. 両方のトリガーワードを入れ、音も描写してプロンプトを書きます。

{BLEND[1]}

LoRAは映像だけに働きます。音声にも働かせるには **audio_strength**（詳細）を上げます。動きの大半は1回目に決まります。
上の**ブレンドマップ**が1回目、下が2回目です。
ここではcfgが1なので *negative*（詳細）は何も変えません。

## モデル
- `checkpoints/{LTX_MODEL}`
- `text_encoders/{LTX_TEXT}`
- `loras/{LTX_LORA}`
- `latent_upscale_models/{LTX_UPSCALER}`

## 差し替え
- **ブレンドカーブ**を *blend* につなぐ。
- 学習したペアには**ペアを読み込む**と**StageBlenderを適用**。
- LTX-2.5: そのローダーを使い、distilledのLoRAを外します。
""",
)
H3 = (
    f"""# MiniMax-H3 with two LoRAs

The picture becomes a video with sound, in {H3_STEPS} steps.

1. Choose a picture in **First frame**, and two LoRAs made for MiniMax-H3 in **Blend Two LoRAs**.
2. Write a prompt with the trigger words of both; describe the sound too.

{BLEND[0]}

The LoRAs shape the picture alone. For the sound as well, raise **audio_strength** (advanced). Picture, sound and text share their
layers in this model, so the sound follows the picture. There is no negative prompt here, so *negative* (advanced) changes nothing.

## Models
- `diffusion_models/{H3_MODEL}`
- `text_encoders/{H3_TEXT}`
- `vae/{H3_VAE}`, `vae/{H3_AUDIO}`
- `loras/{H3_LORA}`

## Swap in
- **Blend Curves**, wired to *blend*.
- **Load Pair** and **Apply StageBlender**, for a pair that you trained.
- Without the turbo LoRA: 20 steps. From text alone: take the wire off *first_frame*.
""",
    f"""# MiniMax-H3を2つのLoRAとともに

画像が、{H3_STEPS}ステップで音声付きの動画になります。

1. **First frame** で画像を、**2つのLoRAをブレンド**で、MiniMax-H3用の2つのLoRAを選びます。
2. 両方のトリガーワードを入れ、音も描写してプロンプトを書きます。

{BLEND[1]}

LoRAは映像だけに働きます。音声にも働かせるには **audio_strength**（詳細）を上げます。このモデルでは映像、音声、
テキストが層を共有するので、音声は映像に従います。
ここにはネガティブプロンプトがないので、*negative*（詳細）は何も変えません。

## モデル
- `diffusion_models/{H3_MODEL}`
- `text_encoders/{H3_TEXT}`
- `vae/{H3_VAE}`、`vae/{H3_AUDIO}`
- `loras/{H3_LORA}`

## 差し替え
- **ブレンドカーブ**を *blend* につなぐ。
- 学習したペアには**ペアを読み込む**と**StageBlenderを適用**。
- turbo LoRAなし: 20ステップ。テキストだけから: *first_frame* のつなぎを外します。
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
