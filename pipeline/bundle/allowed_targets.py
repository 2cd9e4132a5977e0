"""The names from MONAI and torch that a config may build with ``_target_``, and the rooms whose public names it may.

Each name was looked at before it was listed. To add one, ask: can its arguments, given as data, make it import,
execute or unpickle something, open an image, or send something away? Then it stays out. Left out for that reason:
``LoadImaged`` and ``SaveImaged`` (a NumPy reader unpickles; image files are read and written in ``pipeline.io`` alone),
``TorchVisiond`` and ``TorchIOd`` (construct whatever they are told by name), ``MLFlowHandler`` (sends any file to any
address; ``pipeline.handlers.MLflow`` sends figures, to where the user says), ``Lambdad``, ``monai.bundle`` and
everything of ``monai.utils``.
"""

from __future__ import annotations

ROOMS = ("data", "transforms", "networks", "losses", "metrics", "inference", "engines", "handlers")
"""Rooms of ``pipeline`` whose ``__all__`` a config may name. Not io, bundle, cli: a config composes, they act."""

_BY_MODULE = {
    "monai.data": """
        CacheDataset DataLoader Dataset DistributedSampler ThreadDataLoader""",
    "monai.engines": """
        SupervisedEvaluator SupervisedTrainer""",
    "monai.handlers": """
        CheckpointLoader CheckpointSaver ConfusionMatrix EarlyStopHandler GarbageCollector HausdorffDistance
        IgniteMetricHandler LrScheduleHandler MeanDice MeanIoUHandler MetricLogger MetricsSaver PostProcessing
        StatsHandler SurfaceDistance TensorBoardImageHandler TensorBoardStatsHandler ValidationHandler from_engine
        ignore_data""",
    "monai.inferers": """
        SimpleInferer SliceInferer SlidingWindowInferer SlidingWindowInfererAdapt""",
    "monai.losses": """
        DiceCELoss DiceFocalLoss DiceLoss FocalLoss GeneralizedDiceLoss TverskyLoss""",
    "monai.metrics": """
        DiceMetric HausdorffDistanceMetric MeanIoU SurfaceDistanceMetric SurfaceDiceMetric""",
    "monai.networks.nets": """
        BasicUNet BasicUNetPlusPlus DynUNet SegResNet SwinUNETR UNet UNETR VNet""",
    "monai.transforms": """
        Activationsd AdjustContrastd Affined AsDiscreted BorderPadd CastToTyped CenterSpatialCropd
        ClipIntensityPercentilesd Compose ConcatItemsd CopyItemsd CropForegroundd DataStatsd DeleteItemsd DivisiblePadd
        EnsureChannelFirstd EnsureTyped FgBgToIndicesd FillHolesd Flipd GaussianSharpend GaussianSmoothd
        HistogramNormalized Identityd Invertd KeepLargestConnectedComponentd LabelFilterd LabelToMaskd MapLabelValued
        MaskIntensityd MeanEnsembled MedianSmoothd NormalizeIntensityd OneOf Orientationd Rand2DElasticd Rand3DElasticd
        RandAdjustContrastd RandAffined RandAxisFlipd RandBiasFieldd RandCoarseDropoutd RandCropByLabelClassesd
        RandCropByPosNegLabeld RandFlipd RandGaussianNoised RandGaussianSharpend RandGaussianSmoothd RandGibbsNoised
        RandGridDistortiond RandHistogramShiftd RandKSpaceSpikeNoised RandRicianNoised RandRotate90d RandRotated
        RandScaleIntensityd RandShiftIntensityd RandSimulateLowResolutiond RandSpatialCropSamplesd RandSpatialCropd
        RandWeightedCropd RandZoomd RandomOrder RemoveSmallObjectsd RepeatChanneld ResampleToMatchd ResizeWithPadOrCropd
        Resized Rotate90d Rotated ScaleIntensityRangePercentilesd ScaleIntensityRanged ScaleIntensityd SelectItemsd
        ShiftIntensityd SomeOf Spacingd SpatialCropd SpatialPadd SplitDimd SqueezeDimd ThresholdIntensityd ToDeviced
        Transposed VoteEnsembled Zoomd""",
    "torch.nn": """
        BCEWithLogitsLoss CrossEntropyLoss L1Loss MSELoss SmoothL1Loss SyncBatchNorm.convert_sync_batchnorm""",
    "torch.nn.parallel": """
        DistributedDataParallel""",
    "torch.optim": """
        Adam AdamW NAdam RAdam RMSprop SGD""",
    "torch.optim.lr_scheduler": """
        ConstantLR CosineAnnealingLR CosineAnnealingWarmRestarts ExponentialLR LinearLR MultiStepLR OneCycleLR
        PolynomialLR ReduceLROnPlateau SequentialLR StepLR""",
    "torch.utils.tensorboard": """
        SummaryWriter""",
}

ALLOWED_TARGETS = frozenset(f"{module}.{name}" for module, names in _BY_MODULE.items() for name in names.split())
