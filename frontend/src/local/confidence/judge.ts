/** How sure an answer is (`confidence/model.py`: the estimator). It follows from the hits and the export alone. */

import type { Constants } from "../format/manifest";
import type { Rows } from "../format/rows";
import type { Placed, Space, Vectors } from "../format/space";
import { type Floats, meanRow, minusRows, unitRows } from "../search/linear";
import type { Hits, Nearest } from "../search/searcher";
import { Across } from "./across";
import { Calibration, type StoredCalibration } from "./calibration";
import { centredSimilarities, features, type Neighbourhood } from "./features";

/** The contents of the export's file for judging. */
export interface StoredJudge {
  calibration: StoredCalibration;
  /** Weight of each word of each label's name. */
  label_words?: Record<string, number>[];
}

export interface Judgement {
  /** Confidence that the catalogue holds what was searched for. */
  held: number;
  /** From this value on, the answer is called confident. */
  confident: number;
  /** Confidence of each hit that it is what was searched for. */
  matches: number[];
}

export class Judge {
  readonly across: Across | null;
  readonly calibration: Calibration;
  readonly labelWords: readonly Record<string, number>[];
  private readonly sample: { rows: Floats; middle: Floats } | null;
  /** Rows in the space in which confidence was measured: with a projection, this may be the full one. */
  private readonly vectors: Vectors;

  constructor(
    stored: StoredJudge,
    sampleRows: ArrayLike<number>,
    private readonly rows: Rows,
    private readonly space: Space,
    private readonly constants: Constants,
  ) {
    const { across } = stored.calibration;
    this.across = across?.is_on ? new Across(across, constants.across) : null;
    this.labelWords = stored.label_words ?? [];
    this.calibration = new Calibration(stored.calibration, constants.confidence);
    const wantsFull = this.calibration.isFitted && stored.calibration.space == null;
    this.vectors = (wantsFull && rows.full) || rows.vectors;
    const { mean } = this.calibration;
    const m = this.vectors === rows.full ? space.dimension : space.dimensions;
    this.sample = mean.length === m && sampleRows.length > 0 ? this.centred(sampleRows, mean) : null;
  }

  judge(hits: Hits, queryLabels: readonly string[], isAcross: boolean): Judgement {
    const { confidence, across } = this.constants;
    if (!hits.nearest || hits.hits.length === 0) {
      return { held: 0, confident: confidence.confident, matches: hits.hits.map(() => 0) };
    }
    const ranks = hits.hits.map(({ rank }) => rank);
    if (hits.isListed) {
      // A later page, or another order: each is as sure as the match of its rank would be in an answer of the nearest.
      const lead = hits.nearest.rows
        .slice(0, confidence.judged)
        .map((row, rank) => ({ ...(hits.hits[0] as Hits["hits"][0]), row, rank }));
      const judged = this.judge({ ...hits, hits: lead, isListed: false }, queryLabels, isAcross);
      const curve = judged.matches.length > 0 ? judged.matches : [0];
      return { ...judged, matches: ranks.map((rank) => curve[Math.min(rank, curve.length - 1)] as number) };
    }
    if (isAcross && this.across) {
      const { similarities } = hits.nearest;
      return {
        held: this.across.held(similarities),
        confident: across.confident_across,
        matches: this.across.isIt(similarities, ranks),
      };
    }
    const around = this.neighbourhood(hits.nearest, queryLabels);
    const held = this.calibration.confidence(this.calibration.score(around));
    return { held, confident: confidence.confident, matches: this.calibration.confidences(around, ranks, held) };
  }

  /** The numbers that a query is judged by, without its labels. */
  features(nearest: Nearest): Record<string, number> {
    const around = this.neighbourhood(nearest, []);
    const { mean } = this.calibration;
    return mean.length === around.query.length ? features(around, mean, this.constants.confidence) : {};
  }

  private neighbourhood({ query, rows }: Nearest, queryLabels: readonly string[]): Neighbourhood {
    const placed = this.placed(query);
    const { mean } = this.calibration;
    const { sample } = this;
    return {
      query: placed,
      rows: this.vectors.units(rows),
      labelsOf: (place) => this.rows.labelsOf(rows[place] as number),
      queryLabels,
      sampled: sample && { similarities: centredSimilarities(placed, mean, sample.rows), middle: sample.middle },
    };
  }

  /** The query in the space in which confidence was measured, of the length that the space covers. */
  private placed({ full, unit, covered }: Placed): Floats {
    if (full && (this.vectors === this.rows.full || !this.space.projection)) return full;
    return unit.map((value) => value * covered);
  }

  private centred(sampleRows: ArrayLike<number>, mean: Floats): { rows: Floats; middle: Floats } {
    const rows = unitRows(minusRows(this.vectors.units(sampleRows), mean), mean.length);
    return { rows, middle: meanRow(rows, mean.length) };
  }
}
